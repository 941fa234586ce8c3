"""What an initial noise is optimised for: each loss scores a candidate, one number an image, lower is better."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deqir.errors import DeqirError, NonFiniteError, OptionError, ShapeError
from deqir.operators import LinearOperator


@dataclass(frozen=True, eq=False)
class Candidate:
    """A restoration that is being improved: ``image`` (B, C, H, W), nominally in [0, 1], from ``initial_noise``.

    ``y`` is the observation in [0, 1] units, ``operator`` how it came about.
    """

    image: Tensor
    initial_noise: Tensor
    y: Tensor
    operator: LinearOperator


class Loss(ABC):
    """A differentiable score of a candidate."""

    @property
    def name(self) -> str:
        """What messages and records call it."""
        return type(self).__name__

    @abstractmethod
    def __call__(self, candidate: Candidate) -> Tensor:
        """One number an image, (B,)."""


@dataclass(frozen=True, eq=False)
class Distance(Loss):
    """Mean squared distance to a ``guide`` image (1 | B, 1 | C, H, W) in [0, 1], where ``region`` (H, W) is not zero.

    With ``below`` only spatial frequencies up to that many cycles per pixel count (a Gaussian low-pass of that half
    width): the finer detail, which a blurred guide lacks, is left to the prior. Raises ShapeError for a guide or
    region of another size, NonFiniteError for NaN in it, OptionError where ``below`` is not above zero.
    """

    guide: Tensor
    region: Tensor | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        if self.guide.ndim != 4:
            raise ShapeError(f"the guide has shape {tuple(self.guide.shape)}; give (1, C, H, W)")
        if not bool(self.guide.isfinite().all()):
            raise NonFiniteError("the guide holds NaN or infinite values; give finite ones")
        if self.region is not None and not bool(self.region.any()):
            raise OptionError("the region of the guide is empty; mark some pixels")
        if self.below is not None and not self.below > 0:
            raise OptionError(f"below is {self.below}; choose a frequency above zero, up to 0.7 cycles per pixel")

    def __call__(self, candidate: Candidate) -> Tensor:
        guide = _fitting(self.guide, candidate.image, "guide")
        difference = candidate.image - guide
        if self.below is not None:
            difference = _low_passed(difference, self.below)
        squares = difference.square()
        if self.region is None:
            return squares.mean((1, 2, 3))
        weights = _fitting(self.region[None, None], candidate.image, "region")
        return (weights * squares).sum((1, 2, 3)) / (weights.sum() * candidate.image.shape[1])


@dataclass(frozen=True, eq=False)
class PaletteDistance(Loss):
    """How far the colours are from those of a ``reference`` photo (1, 3, H, W) of any size, wherever they are in it.

    The sliced Wasserstein distance of the two clouds of colours (Rabin et al. 2012): mean squared distance of sorted
    projections onto ``directions`` fixed random axes. With ``chroma_only`` brightness is left out. Raises ShapeError
    for a reference without three channels.
    """

    reference: Tensor
    directions: int = 32
    chroma_only: bool = True

    def __post_init__(self) -> None:
        if self.reference.ndim != 4 or self.reference.shape[1] != 3:
            raise ShapeError(f"the palette has shape {tuple(self.reference.shape)}; give a colour photo (1, 3, H, W)")
        if not bool(self.reference.isfinite().all()):
            raise NonFiniteError("the palette holds NaN or infinite values; give finite ones")
        if self.directions < 1:
            raise OptionError(f"directions is {self.directions}; choose at least 1")

    def __call__(self, candidate: Candidate) -> Tensor:
        if candidate.image.shape[1] != 3:
            raise ShapeError("the restored image is grey and has no palette; choose another loss")
        ours = self._projections(candidate.image)
        theirs = self._projections(self.reference.to(candidate.image))
        quantiles = torch.linspace(0, 1, ours.shape[-1], dtype=ours.dtype, device=ours.device)
        wanted = _quantiles(theirs.sort(-1).values, quantiles)
        return (ours.sort(-1).values - wanted).square().mean((1, 2))

    def _projections(self, image: Tensor) -> Tensor:
        """(B, directions, pixels)."""
        axes = torch.randn(self.directions, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        if self.chroma_only:
            axes = axes - axes.mean(1, keepdim=True)
        axes = (axes / axes.norm(dim=1, keepdim=True)).to(image)
        return torch.einsum("dc,bcp->bdp", axes, image.flatten(2))


@dataclass(frozen=True, eq=False)
class MeasurementConsistency(Loss):
    """Mean square of ``A x - y``; zero already where the rule keeps ``A x = y`` exactly."""

    def __call__(self, candidate: Candidate) -> Tensor:
        return (candidate.operator.forward(candidate.image) - candidate.y).flatten(1).square().mean(1)


@dataclass(frozen=True, eq=False)
class TotalVariation(Loss):
    """Mean length of the gradient of the image (isotropic total variation, Rudin et al. 1992), smoothed by 1e-3."""

    def __call__(self, candidate: Candidate) -> Tensor:
        down, across = _differences(candidate.image)
        return (down.square() + across.square() + 1e-6).sqrt().mean((1, 2, 3))


@dataclass(frozen=True, eq=False)
class HighFrequencyEnergy(Loss):
    """Mean power at spatial frequencies above ``cutoff`` cycles per pixel (0 to 0.5)."""

    cutoff: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.cutoff < 0.5:
            raise OptionError(f"the cutoff is {self.cutoff}; choose 0 up to, not including, 0.5 cycles per pixel")

    def __call__(self, candidate: Candidate) -> Tensor:
        height, width = candidate.image.shape[-2:]
        down, across = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None]
        high = ((down.square() + across.square()).sqrt() > self.cutoff).to(candidate.image)
        spectrum = torch.fft.fft2(candidate.image, norm="ortho")
        power: Tensor = high * (spectrum.real.square() + spectrum.imag.square())
        return power.mean((1, 2, 3))


@dataclass(frozen=True, eq=False)
class Sharpness(Loss):
    """Squared logarithm of the image's mean squared gradient over ``ratio`` times that of a ``reference`` image.

    ``reference`` (1 | B, 1 | C, H, W) in [0, 1]; beside a guide that is blurred, ``ratio`` 1.25 of its own sharpness
    keeps the image sharper than the guide. Raises ShapeError for a reference of another size, OptionError where
    ``ratio`` is not above zero.
    """

    reference: Tensor
    ratio: float = 1.0

    def __post_init__(self) -> None:
        if not self.ratio > 0:
            raise OptionError(f"the ratio of sharpness is {self.ratio}; choose a number above zero")

    def __call__(self, candidate: Candidate) -> Tensor:
        reference = _fitting(self.reference, candidate.image, "reference")
        ours, theirs = (_gradient_energy(image) + 1e-8 for image in (candidate.image, reference))
        return (ours / (self.ratio * theirs)).log().square()


@dataclass(frozen=True, eq=False)
class Gaussianity(Loss):
    """How unlike white Gaussian noise the initial noise is.

    Squared mean, squared excess of the variance, and squared correlations of neighbours at ``scales`` sizes, each of
    order 1 / pixels for real noise: what a chain was not trained on makes it leave the images.
    """

    scales: int = 3

    def __call__(self, candidate: Candidate) -> Tensor:
        noise = candidate.initial_noise
        total = torch.zeros_like(noise[:, 0, 0, 0])
        for _ in range(self.scales):
            total = total + noise.mean((1, 2, 3)).square() + (noise.square().mean((1, 2, 3)) - 1).square()
            for axis in (-2, -1):
                total = total + (noise * noise.roll(1, axis)).mean((1, 2, 3)).square()
            if min(noise.shape[-2:]) < 4:
                break
            noise = torch.nn.functional.avg_pool2d(noise, 2) * 2  # keeps the variance of white noise
        return total


@dataclass(frozen=True, eq=False)
class Perceptual(Loss):
    """LPIPS distance to a ``guide`` (1 | B, 3, H, W) in [0, 1] (Zhang et al. 2018, arXiv 1801.03924), by torchmetrics.

    ``network`` is alex, vgg or squeeze. Raises DeqirError where torchvision or the network's weights are missing: they
    are downloaded once by torchvision and cannot be fetched offline.
    """

    guide: Tensor
    network: str = "alex"
    _model: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.network not in ("alex", "vgg", "squeeze"):
            raise OptionError(f"the network of LPIPS is {self.network!r}; choose alex, vgg or squeeze")
        object.__setattr__(self, "_model", _lpips(self.network))

    def __call__(self, candidate: Candidate) -> Tensor:
        if candidate.image.shape[1] != 3:
            raise ShapeError("LPIPS compares colour images; choose another loss for a grey one")
        guide = _fitting(self.guide, candidate.image, "guide").expand_as(candidate.image).clamp(0, 1)
        network = self._model.to(candidate.image.device)
        distance: Tensor = network(candidate.image.clamp(0, 1).float(), guide.float(), normalize=True)
        return distance.flatten()


@dataclass(frozen=True, eq=False)
class EmbeddingDistance(Loss):
    """One minus the cosine of the image's embedding and a ``target`` (1 | B, D), a text prompt's for instance (CLIP).

    ``encode`` takes images (B, C, H, W) in [0, 1] to (B, D) and must be differentiable; it resizes and normalises as
    its network wants it.
    """

    encode: Callable[[Tensor], Tensor]
    target: Tensor

    def __call__(self, candidate: Candidate) -> Tensor:
        embedded = self.encode(candidate.image)
        if embedded.ndim != 2 or embedded.shape[-1] != self.target.shape[-1]:
            shapes = f"{tuple(embedded.shape)} and the target {tuple(self.target.shape)}"
            raise ShapeError(f"the embedding has shape {shapes}; make encode return (B, D) with the target's D")
        return 1 - torch.nn.functional.cosine_similarity(embedded, self.target.to(embedded), dim=-1)


@dataclass(frozen=True, eq=False)
class CustomLoss(Loss):
    """Any ``function`` of a candidate that returns one number an image, (B,), or a single one."""

    function: Callable[[Candidate], Tensor]

    @property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def __call__(self, candidate: Candidate) -> Tensor:
        value = self.function(candidate)
        count = len(candidate.image)
        if not isinstance(value, Tensor) or value.shape not in ((count,), ()):
            kind = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ShapeError(
                f"the loss {self.name} returned {kind}; return a tensor of shape ({count},), or one number"
            )
        return value.expand(count)


def _fitting(image: Tensor, like: Tensor, name: str) -> Tensor:
    """``image`` on the device and in the dtype of ``like``, once it is known to broadcast to it without growing it."""
    fits = image.shape[-2:] == like.shape[-2:] and image.shape[1] in (1, like.shape[1])
    if not fits or len(image) not in (1, len(like)):
        shapes = f"{tuple(image.shape)} but the restored image {tuple(like.shape)}"
        raise ShapeError(f"the {name} has shape {shapes}; make them the same size")
    return image.to(like)


def _low_passed(image: Tensor, half_width: float) -> Tensor:
    """``image`` with frequency f weighed by ``2 ** -(f / half_width)^2``."""
    down, across = torch.fft.fftfreq(image.shape[-2])[:, None], torch.fft.rfftfreq(image.shape[-1])[None]
    gain = torch.exp2(-(down.square() + across.square()) / half_width**2).to(image)
    filtered: Tensor = torch.fft.irfft2(gain * torch.fft.rfft2(image), s=image.shape[-2:])
    return filtered


def _differences(image: Tensor) -> tuple[Tensor, Tensor]:
    """Differences to the next pixel down and across, zero at the far border."""
    down = torch.nn.functional.pad(image.diff(dim=-2), (0, 0, 0, 1))
    across = torch.nn.functional.pad(image.diff(dim=-1), (0, 1))
    return down, across


def _gradient_energy(image: Tensor) -> Tensor:
    """Mean squared gradient, (B,)."""
    down, across = _differences(image)
    return (down.square() + across.square()).mean((1, 2, 3))


def _quantiles(ascending: Tensor, at: Tensor) -> Tensor:
    """The values of ascending samples (..., n) at the quantiles ``at`` (m,), interpolated, (..., m)."""
    position = at * (ascending.shape[-1] - 1)
    below = position.floor().long()
    above = (below + 1).clamp(max=ascending.shape[-1] - 1)
    return ascending[..., below].lerp(ascending[..., above], position - below)


def _lpips(network: str) -> Any:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        return LearnedPerceptualImagePatchSimilarity(network).net.eval().requires_grad_(False)
    except ModuleNotFoundError:
        raise DeqirError("LPIPS needs torchvision; install it, or choose another loss") from None
    except (OSError, RuntimeError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise DeqirError(
            f"the weights of LPIPS ({network}) are not on this machine and could not be fetched ({first_line}); "
            "run once with network access, or choose another loss"
        ) from None
