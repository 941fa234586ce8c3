"""What deqir runs on: versions, devices, memory, optional packages, cache folders and the built-in prior."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from deqir.version import __version__

PACKAGE = "deqir"
MISSING, LOADS = "missing", "loads"
BYTES_PER_GB = 1e9


def examine() -> dict[str, Any]:
    """All findings, as JSON can hold them: versions, devices, memory in GB, extras and caches."""
    requirements = [Requirement(text) for text in _requirements()]
    return {
        "deqir": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {item.name: installed(item) for item in requirements if item.marker is None},
        "extras": extras(requirements),
        "devices": devices(),
        "memory": memory(),
        "caches": caches(),
        "prior": builtin_prior(),
    }


def installed(requirement: Requirement) -> str:
    """The version that is installed; a sentence where it is missing or does not fit the ``requirement``."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return MISSING
    fits = requirement.specifier.contains(found, prereleases=True)
    return found if fits else f"{found}, but {requirement.specifier} is needed"


def extras(requirements: Iterable[Requirement]) -> dict[str, dict[str, str]]:
    """For every extra the state of its packages, those of the extras it takes in included."""
    every = list(requirements)
    names = sorted({name for item in every for name in _extra_names(item)})
    return {name: {item.name: installed(item) for item in _packages(name, every)} for name in names}


def devices() -> list[dict[str, Any]]:
    """The CPU and every accelerator that torch can use, with its memory in GB where it tells."""
    import torch

    found: list[dict[str, Any]] = [
        {"device": "cpu", "name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    ]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        found.append({"device": f"cuda:{index}", "name": name, "free": _gigabytes(free), "total": _gigabytes(total)})
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": "Apple GPU", "total": _gigabytes(torch.mps.recommended_max_memory())})
    return found


def memory() -> dict[str, float]:
    """The machine's memory in GB: in all, and what is free for a program."""
    import psutil

    state = psutil.virtual_memory()
    return {"total": _gigabytes(state.total), "available": _gigabytes(state.available)}


def caches() -> dict[str, dict[str, Any]]:
    """The folders where the hub's priors and torch's weights are kept, and what of use is in them."""
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from deqir.priors.hub import cached_models

    weights = Path(torch.hub.get_dir()) / "checkpoints"
    return {
        "priors": {"folder": HF_HUB_CACHE, "holds": [name for name, _ in cached_models()]},
        "weights": {"folder": str(weights), "holds": sorted(path.name for path in weights.glob("*.pth"))},
    }


def builtin_prior() -> dict[str, str]:
    """Whether the built-in prior loads: ``state`` is loads, or a sentence that says why not."""
    from deqir.errors import DeqirError
    from deqir.priors import load_prior

    try:
        load_prior()
    except (DeqirError, ImportError, OSError) as error:
        return {"state": f"does not load: {' '.join(str(error).split())}"}
    return {"state": LOADS}


def problems(findings: dict[str, Any]) -> list[str]:
    """One sentence for every package that is missing or does not fit, and for a built-in prior that does not load."""
    found = [
        f"{name} is {state}; run pip install --upgrade {PACKAGE}"
        for name, state in findings["packages"].items()
        if state == MISSING or "needed" in state
    ]
    prior = findings["prior"]["state"]
    return found if prior == LOADS else [*found, f"the built-in prior {prior}; install {PACKAGE} again"]


def _requirements() -> list[str]:
    try:
        return requires(PACKAGE) or []
    except PackageNotFoundError:
        return []


def _extra_names(requirement: Requirement) -> list[str]:
    """The extras that bring the ``requirement``, from its marker ``extra == "name"``."""
    parts = str(requirement.marker or "").split("extra == ")[1:]
    return [part.split('"')[1] for part in parts]


def _packages(extra: str, requirements: list[Requirement]) -> list[Requirement]:
    found: list[Requirement] = []
    for item in requirements:
        if extra in _extra_names(item):
            inner = [part for name in sorted(item.extras) for part in _packages(name, requirements)]
            found += inner if item.name == PACKAGE else [item]
    return found


def _gigabytes(count: int) -> float:
    return round(count / BYTES_PER_GB, 1)
