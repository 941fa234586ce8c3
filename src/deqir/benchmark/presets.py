"""Protocols of published experiments; docs/paper-protocols.md states each with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deqir.benchmark.cases import Degradation
from deqir.benchmark.plans import parse_degradation

IMAGENET_LIST = "imagenet_val_1k.txt"


@dataclass(frozen=True)
class Preset:
    """A protocol: ``settings`` as ``plan_from_settings`` takes them, without priors, and where they were read.

    ``every``: of the sorted images, every so many are used. ``list_name``: the list of the images meant, which has to
    lie in the data folder. ``masked``: the protocol also inpaints with mask files of its authors.
    """

    source: str
    settings: Mapping[str, Any]
    every: int = 1
    list_name: str | None = None
    masked: bool = False

    def plan_settings(self, masks: Sequence[str] = ()) -> dict[str, Any]:
        """The settings, with one inpainting task for each of the ``masks``, files, white = kept."""
        tasks = list(self.settings["tasks"])
        if self.masked:
            tasks += [{"name": "inpaint", "mask": mask} for mask in masks]
        return {**self.settings, "tasks": tasks}

    def degradations(self) -> list[Degradation]:
        """Those of the protocol that need no file."""
        return [parse_degradation(task) for task in self.settings["tasks"]]


CELEBA = {"fit": "resize", "size": 256}
IMAGENET = {"fit": "crop", "size": 256}
DDNM_CHAIN = {"steps": [100], "eta": 0.85, "spacing": "leading", "seed": 1234}
DDRM_CHAIN = {"steps": [20], "eta": 0.85, "spacing": "leading", "seed": 1234}
DEQIR_CHAIN = {"steps": [25], "eta": 0.0, "spacing": "leading", "seed": 666}
NOISELESS = [
    "sr:scale=4,downsampling=bicubic",
    "sr:scale=4,downsampling=average",
    "deblur:blur=gaussian,boundary=zero",
    "colorize:weights=mean",
    "cs:ratio=0.25",
]
NOISY = ["sr:scale=16,noise=0.2", "cs:ratio=0.25,noise=0.2"]
DDNM_METHODS = ["serial", "preconditioned", "classical"]
DDRM_METHODS = ["serial:ddrm", "preconditioned:ddrm", "classical"]
DDRM_TASKS = [
    "sr:scale=4,noise=0.05",
    "deblur:blur=uniform,boundary=zero,noise=0.05",
    "sr:scale=4",
    "deblur:blur=uniform,boundary=zero",
]
DEQIR_TASKS = [
    "sr:scale=2",
    "sr:scale=4",
    "deblur:blur=gaussian,boundary=zero",
    "deblur:blur=anisotropic,boundary=zero",
    "colorize:weights=mean",
]
DEQIR_METHODS = ["serial", "anderson", "preconditioned"]
DDNM_CODE, DDRM_CODE, DEQIR_CODE = "wyhuai/DDNM 00b58ea", "bahjat-kawar/ddrm 32b6b3c", "caojiezhang/DeqIR 5ca8c9f"

PRESETS: Mapping[str, Preset] = {
    "ddnm-celeba": Preset(
        f"{DDNM_CODE}, evaluation.sh",
        {**CELEBA, **DDNM_CHAIN, "methods": DDNM_METHODS, "tasks": [*NOISELESS, *NOISY]},
        masked=True,
    ),
    "ddnm-imagenet": Preset(
        f"{DDNM_CODE}, evaluation.sh",
        {**IMAGENET, **DDNM_CHAIN, "methods": DDNM_METHODS, "tasks": NOISELESS},
        list_name=IMAGENET_LIST,
        masked=True,
    ),
    "ddrm-celeba": Preset(
        f"{DDRM_CODE}, README.md",
        {**CELEBA, **DDRM_CHAIN, "methods": DDRM_METHODS, "tasks": DDRM_TASKS[:1]},
    ),
    "ddrm-imagenet": Preset(
        f"{DDRM_CODE}, README.md and runners/diffusion.py",
        {**IMAGENET, **DDRM_CHAIN, "methods": DDRM_METHODS, "tasks": DDRM_TASKS},
        list_name=IMAGENET_LIST,
    ),
    "deqir-celeba": Preset(
        f"{DEQIR_CODE}, README.md and runners/diffusion.py; its tables at fdd3850",
        {**CELEBA, **DEQIR_CHAIN, "methods": DEQIR_METHODS, "tasks": DEQIR_TASKS},
        every=10,
        masked=True,
    ),
    "deqir-imagenet": Preset(
        f"{DEQIR_CODE}, runners/diffusion.py and datasets/__init__.py; its tables at fdd3850",
        {**IMAGENET, **DEQIR_CHAIN, "methods": DEQIR_METHODS, "tasks": DEQIR_TASKS},
        list_name="imagenet_val_100.txt",
    ),
}
