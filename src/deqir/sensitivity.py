"""Seeing why: which observed pixels, and which noise, decided a region of the restored image; and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deqir.adjoints import Adjoint
from deqir.differentiation import differentiable
from deqir.errors import OptionError, ShapeError
from deqir.noise import generator
from deqir.overlays import outlined, overlay
from deqir.restoration import Restorer


@dataclass(frozen=True)
class Region:
    """A rectangle of the restored image in pixels: ``left``, ``top``, ``width``, ``height``.

    Raises OptionError where it is empty or begins outside the image.
    """

    left: int
    top: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.left < 0 or self.top < 0 or self.width < 1 or self.height < 1:
            raise OptionError(f"the region {self} is empty or begins outside the image; give left,top,width,height")

    @classmethod
    def parse(cls, text: str) -> Region:
        """The region that ``text`` writes as left,top,width,height."""
        try:
            left, top, width, height = (int(part) for part in text.split(","))
        except ValueError:
            raise OptionError(f"the region is {text!r}; give four whole numbers: left,top,width,height") from None
        return cls(left, top, width, height)

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.width},{self.height}"

    def mask(self, size: tuple[int, int]) -> Tensor:
        """(H, W) of 0 and 1 for an image of ``size`` (H, W). Raises OptionError where it reaches beyond the image."""
        if self.left + self.width > size[1] or self.top + self.height > size[0]:
            raise OptionError(f"the region {self} reaches beyond the image of {size[1]} x {size[0]} pixels; move it")
        mask = torch.zeros(size)
        mask[self.top : self.top + self.height, self.left : self.left + self.width] = 1
        return mask


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What a change of one observed or noise value does to a region, root mean square over the region's values.

    ``observation`` has the shape of one observation and ``noise`` that of x_0, (C, H, W): the change of a value of the
    region, in units of the image in [0, 1], per unit of an observed value in [0, 1], and of x_0's standard deviation.
    ``image`` (C, H, W) is the restoration. With S probes a figure is right to about ``1 / sqrt(2 S)``.
    """

    image: Tensor
    observation: Tensor
    noise: Tensor
    sweeps: int

    def over_observation(self, y: Tensor, region: Tensor) -> Tensor | None:
        """``observation`` as colours over ``y`` (1, C, h, w), (3, h, w); None where that is no image.

        Where it has the size of ``region`` (H, W), of 0 and 1, its border is drawn.
        """
        if y.ndim != 4:
            return None
        strength = self.observation.cpu().square().sum(0).sqrt()
        shown = overlay(y[0].cpu(), strength)
        return outlined(shown, region) if strength.shape == region.shape else shown

    def over_image(self, region: Tensor) -> Tensor:
        """``noise`` as colours over the restoration, with the border of ``region`` (H, W) of 0 and 1, (3, H, W)."""
        return outlined(overlay(self.image.cpu(), self.noise.cpu().square().sum(0).sqrt()), region)


def explain(
    restorer: Restorer,
    y: Tensor,
    region: Tensor,
    seed: int = 0,
    probes: int = 8,
    adjoint: Adjoint | None = None,
) -> Sensitivity:
    """Which values of the observation ``y`` (1, ...) decided the ``region`` (H, W), of 0 and 1, of its restoration.

    The squared Jacobian of the region, summed over its pixels, is estimated from ``probes`` random combinations of them
    (Hutchinson 1990): ``E (J^T r)^2`` over signs r. All probes are images of one batch, so that one restoration and one
    adjoint solve give the map. ``adjoint`` None is implicit for parallel solvers, unrolled for the serial one. Raises
    ShapeError where ``y`` is not one observation or the region not of the image's size, OptionError where it is empty
    or ``probes`` below 1.
    """
    if len(y) != 1:
        raise ShapeError(f"there are {len(y)} observations; explain one at a time")
    if probes < 1:
        raise OptionError(f"probes is {probes}; choose at least 1")
    if not bool(region.any()):
        raise OptionError("the region is empty; mark some pixels")
    copies = y.detach().expand(probes, *y.shape[1:]).clone().requires_grad_()
    noise = restorer.draw(copies, [seed] * probes).initial.requires_grad_()
    restorer, adjoint = differentiable(restorer, copies.detach(), adjoint)
    result = restorer.restore(copies, [seed] * probes, initial_noise=noise, adjoint=adjoint)
    if region.shape != result.image.shape[-2:]:
        raise ShapeError(
            f"the region has shape {tuple(region.shape)} but the restored image {tuple(result.image.shape[-2:])}; "
            "make them the same size"
        )
    signs = torch.randint(0, 2, result.image.shape, generator=generator(seed, "probes")) * 2.0 - 1
    weights = region.to(result.image) * signs.to(result.image)
    found = torch.autograd.grad((weights * result.image).sum(), (copies, noise))
    count = float(region.sum()) * result.image.shape[1]
    maps = [(gradient.square().mean(0) / count).sqrt() for gradient in found]
    return Sensitivity(result.image[0].detach(), maps[0], maps[1], max(result.stats.sweeps))


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """Several restorations of one observation: their ``mean`` and ``spread`` (C, H, W), and ``images`` (n, C, H, W).

    ``spread`` is the standard deviation over the seeds, in [0, 1] units.
    """

    mean: Tensor
    spread: Tensor
    images: Tensor

    @property
    def level(self) -> Tensor:
        """``spread`` (H, W) on the CPU, root mean square over the colours."""
        return self.spread.cpu().square().mean(0).sqrt()

    def over_image(self, image: Tensor) -> Tensor:
        """``level`` as colours over the restoration ``image`` (C, H, W), (3, H, W)."""
        return overlay(image.cpu(), self.level)


def uncertainty(restorer: Restorer, y: Tensor, seeds: int = 8, seed: int = 0) -> Uncertainty:
    """How far restorations of ``y`` (1, ...) from ``seeds`` seeds, ``seed`` and up, differ: one batched restoration.

    Raises ShapeError where ``y`` is not one observation, OptionError for fewer than two seeds.
    """
    if len(y) != 1:
        raise ShapeError(f"there are {len(y)} observations; explain one at a time")
    if seeds < 2:
        raise OptionError(f"seeds is {seeds}; a spread needs at least 2")
    images = restorer.restore(y.expand(seeds, *y.shape[1:]), seed).image.clamp(0, 1)
    return Uncertainty(images.mean(0), images.std(0), images)
