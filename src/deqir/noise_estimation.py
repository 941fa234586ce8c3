"""How noisy an observation is: the standard deviation of white Gaussian noise, from the observation alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import torch
from torch import Tensor

from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.operators.colorization import NAMED_WEIGHTS

COLOUR_PATCHES = ((4, 1.0), (2, 1.0))
GREY_PATCHES = ((8, 0.5),)
"""Sides of patches, and the share of them, the smoothest, that is looked at; the first of which there are enough."""

LUMA = NAMED_WEIGHTS["luma"]
SMOOTHED_COLOUR = 0.5
"""White noise is 1.5 times as strong in the channels as in luma; weaker than this share of it, it is not white."""

PATCHES_PER_DIMENSION = 20
MOST_PATCHES = 100_000
FEWEST_DIFFERENCES = 32
MEDIAN_OF_NORMAL = 0.6744897501960817


def estimate_noise(y: Tensor, known: Tensor | None = None) -> float:
    """The standard deviation of the white Gaussian noise in the image ``y`` (C, H, W), in the units of ``y``.

    ``known`` (1 | C, H, W) is 1 where a pixel is observed; the others are not looked at. The noise is taken to be
    independent between pixels and, unless it is far weaker in colour than in luma, between channels: JPEG and cameras
    smooth colour, and what is left in luma is then taken for the level. Texture finer than the patches is counted as
    noise, so that an estimate is rather too high than too low; strong JPEG compression removes some noise.

    The method is that of Chen, Zhu and Heng (ICCV 2015): small patches of an image lie near a subspace, so that the
    smallest eigenvalues of their covariance are the noise's variance; those that count as small are the largest set
    whose mean is its median. Patches span all channels; of grey images only the smoother half of the patches is taken.
    Where a mask or a small image leaves too few patches, it is the median absolute diagonal difference of 2x2 blocks
    (Donoho and Johnstone, Biometrika 1994).

    Raises ShapeError for another shape, NonFiniteError for NaN in known pixels, OptionError where hardly any 2x2 block
    is known whole.
    """
    if y.ndim != 3 or y.numel() == 0:
        raise ShapeError(f"the noise of a tensor of shape {tuple(y.shape)} is not known; give an image (C, H, W)")
    image = y.detach().cpu().double()
    mask = torch.ones(image.shape[-2:], dtype=torch.bool) if known is None else _mask(known, image)
    if not bool(image[:, mask].isfinite().all()):
        raise NonFiniteError("the observation holds NaN or infinite values; replace them or mask those pixels")
    if bool((image[:, mask] == image[:1, mask]).all()):
        image = image[:1]
    if len(image) == 1:
        return _level(image, mask, GREY_PATCHES)
    colour = _level(image, mask, COLOUR_PATCHES)
    if len(image) != len(LUMA):
        return colour
    luma = _level((image * image.new_tensor(LUMA).view(-1, 1, 1)).sum(0, keepdim=True), mask, GREY_PATCHES)
    return luma if colour < SMOOTHED_COLOUR * luma else colour


def _level(image: Tensor, mask: Tensor, sizes: Sequence[tuple[int, float]]) -> float:
    """The level by the first of the patch ``sizes`` of which there are enough, else by differences."""
    for side, share in sizes:
        patches = _smoothest(_known_patches(image, mask, side), len(image), share)
        if len(patches) >= PATCHES_PER_DIMENSION * patches.shape[1]:
            return _smallest_deviation(patches)
    return _median_difference(image, mask)


def _mask(known: Tensor, image: Tensor) -> Tensor:
    """Where all channels of a pixel are known, (H, W)."""
    mask = known.detach().cpu().bool().reshape(-1, *known.shape[-2:]).all(0)
    if mask.shape != image.shape[-2:]:
        raise ShapeError(
            f"the mask is {tuple(mask.shape)} but the image {tuple(image.shape[-2:])}; give a mask of the image's size"
        )
    return mask


def _known_patches(image: Tensor, mask: Tensor, side: int) -> Tensor:
    """The patches (count, C * side * side) all of whose pixels are known, thinned out where there are very many."""
    height, width = mask.shape
    if min(height, width) < side:
        return image.new_empty(0, len(image) * side**2)
    stride = max(1, ceil(sqrt(height * width / MOST_PATCHES)))
    whole = mask.unfold(0, side, stride).unfold(1, side, stride).flatten(2).all(2)
    patches = image.unfold(1, side, stride).unfold(2, side, stride)
    return patches[:, whole].movedim(0, 1).flatten(1)


def _smoothest(patches: Tensor, channels: int, share: float) -> Tensor:
    """The ``share`` of the patches with the least variance within their channels."""
    if share == 1 or not len(patches):
        return patches
    variances = patches.view(len(patches), channels, -1).var(2).mean(1)
    return patches[variances.argsort()[: ceil(share * len(patches))]]


def _smallest_deviation(patches: Tensor) -> float:
    """The root of the mean of the largest set of smallest eigenvalues whose mean is not above their median."""
    eigenvalues = torch.linalg.eigvalsh(torch.cov(patches.T)).clamp(min=0)
    for count in range(len(eigenvalues), 1, -1):
        smallest = eigenvalues[:count]
        mean = smallest.mean()
        if (smallest > mean).sum() >= (smallest < mean).sum():
            return float(mean.sqrt())
    return float(eigenvalues[0].sqrt())


def _median_difference(image: Tensor, mask: Tensor) -> float:
    whole = mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:] & mask[1:, 1:]
    differences = (image[:, :-1, :-1] - image[:, 1:, :-1] - image[:, :-1, 1:] + image[:, 1:, 1:])[:, whole] / 2
    if differences.shape[1] < FEWEST_DIFFERENCES:
        raise OptionError("hardly any neighbouring pixels are known, too few to estimate the noise; give its level")
    return float(differences.abs().median(1).values.mean() / MEDIAN_OF_NORMAL)
