"""Figures of merit: PSNR and SSIM of every image, LPIPS, FID and KID where their networks are at hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from deqir.errors import NonFiniteError, ShapeError
from deqir.metrics import psnr, ssim
from deqir.operators import LinearOperator
from deqir.records import finite_or_none

LpipsNetwork = Literal["alex", "vgg", "squeeze"]
LPIPS_SIDE = 64
"""Pixels of the shorter side below which the networks of LPIPS have nothing left to see."""
KID_SUBSET = 1000
_BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}
_INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # the file name of torch-fidelity


@dataclass(frozen=True, eq=False)
class Scores:
    """The figures that can be had on this machine.

    ``lpips``: the distance of two (B, 3, H, W) batches in [-1, 1], ``inception``: what torchmetrics takes as features
    of FID and KID; None where they are absent. ``absent`` says why, by the name of the figure. Nothing is downloaded.
    """

    lpips: Callable[[Tensor, Tensor], Tensor] | None = None
    inception: int | torch.nn.Module | None = None
    absent: dict[str, str] = field(default_factory=dict)

    @classmethod
    def available(cls, network: LpipsNetwork = "alex") -> Scores:
        """What the installed packages and the weights in torch's hub folder allow."""
        without_lpips = _missing("torchvision", lambda: _backbone_file(network))
        without_inception = _missing("torch_fidelity", lambda: _INCEPTION)
        absent = {} if without_lpips is None else {"lpips": without_lpips}
        if without_inception is not None:
            absent |= {"fid": without_inception, "kid": without_inception}
        lpips = _lpips(network) if without_lpips is None else None
        return cls(lpips, 2048 if without_inception is None else None, absent)

    def of_image(self, image: Tensor, truth: Tensor) -> dict[str, float | None]:
        """The figures of ``image`` (1, C, H, W) against ``truth``, both in [0, 1].

        ``psnr`` in dB (None: identical), ``ssim``, and ``lpips`` where it can be had and the image is large enough.
        """
        figures: dict[str, float | None] = {
            "psnr": finite_or_none(float(psnr(image, truth)[0])),
            "ssim": float(ssim(image, truth)[0]),
        }
        if self.lpips is not None and min(truth.shape[2:]) >= LPIPS_SIDE:
            colour = [(2 * part - 1).float().expand(-1, 3, -1, -1) for part in (image, truth)]
            figures["lpips"] = _finite("LPIPS", float(self.lpips(*colour)))
        return figures

    def of_sets(self, images: Iterable[Tensor], truths: Iterable[Tensor]) -> dict[str, float]:
        """``fid`` and ``kid`` of the set of ``images`` against that of ``truths``, each (C, H, W) in [0, 1].

        KID is the mean over subsets of 1000 images, or of all where there are fewer. Raises ShapeError for fewer than
        two images.
        """
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        restored, real = [_bytes(image) for image in images], [_bytes(image) for image in truths]
        smaller = min(len(restored), len(real))
        if smaller < 2:
            raise ShapeError(f"FID and KID need at least two images on each side but got {smaller}; give more")
        features: Any = self.inception
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that KID keeps all features, which are few here
            torch.manual_seed(0)  # KID draws its subsets
            fid = FrechetInceptionDistance(features)
            kid = KernelInceptionDistance(features, subset_size=min(KID_SUBSET, smaller))
            for metric in (fid, kid):
                for group, is_real in ((real, True), (restored, False)):
                    for image in group:
                        metric.update(image, real=is_real)
            return {"fid": _finite("FID", float(fid.compute())), "kid": _finite("KID", float(kid.compute()[0]))}


def consistency(operator: LinearOperator, image: Tensor, y: Tensor) -> float:
    """The consistency of colourisation tables, sum |A x - y| with x = ``image`` as a file of 8 bits holds it.

    ``image`` and the observation ``y`` are in [0, 1]; less is better. docs/paper-protocols.md says how sure it is that
    papers mean this.
    """
    kept = (image.clamp(0, 1) * 255).round() / 255
    return _finite("the consistency", float((operator.forward(kept) - y).abs().sum()))


def _missing(package: str, weights: Callable[[], str]) -> str | None:
    """What is missing, in words: the package, or the file with the weights; None where both are there."""
    if find_spec(package) is None:
        return f"the package {package.replace('_', '-')} is not installed; pip install 'deqir[benchmark]'"
    folder, name = Path(torch.hub.get_dir()) / "checkpoints", weights()
    return None if (folder / name).is_file() else f"the weights {name} are not in {folder}; download them there"


def _backbone_file(network: LpipsNetwork) -> str:
    import torchvision

    weights = getattr(torchvision.models, _BACKBONES[network]).DEFAULT
    return str(weights.url.rsplit("/", 1)[-1])


def _lpips(network: LpipsNetwork) -> Callable[[Tensor, Tensor], Tensor]:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LearnedPerceptualImagePatchSimilarity(network).net.eval().requires_grad_(False)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        value: Tensor = model(a, b)
        return value

    return distance


def _bytes(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).expand(3, -1, -1)[None]


def _finite(name: str, value: float) -> float:
    if not isfinite(value):
        raise NonFiniteError(f"{name} is {value}, so there is no figure; check the images")
    return value
