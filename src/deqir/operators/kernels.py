"""Blur kernels: float64 (kh, kw) tensors that sum to 1, odd-sized and centred."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.operators.checks import require_integer, require_odd, require_positive


def gaussian_kernel(taps: int = 5, sigma: float = 10.0) -> Tensor:
    """An isotropic Gaussian of standard deviation ``sigma`` pixels cut to (taps, taps).

    The default is the Gaussian deblurring of DDRM and DDNM. Raises OptionError unless taps is odd and sigma positive.
    """
    return anisotropic_kernel(taps, (sigma, sigma))


def uniform_kernel(taps: int = 9) -> Tensor:
    """A box of (taps, taps) equal values (DDRM's uniform deblurring). Raises OptionError unless taps is odd."""
    require_odd("taps", taps)
    return torch.full((taps, taps), 1 / taps**2, dtype=torch.float64, device="cpu")


def anisotropic_kernel(taps: int = 9, sigma: tuple[float, float] = (20.0, 1.0)) -> Tensor:
    """A Gaussian of standard deviations ``sigma`` (vertical, horizontal) pixels cut to (taps, taps).

    The default is DDRM's anisotropic deblurring. Raises OptionError unless taps is odd and both sigmas are positive.
    """
    require_odd("taps", taps)
    for value in sigma:
        require_positive("sigma", value)
    offset = torch.arange(taps, dtype=torch.float64, device="cpu") - taps // 2
    vertical, horizontal = (torch.exp(-0.5 * (offset / value) ** 2) for value in sigma)
    return torch.outer(vertical / vertical.sum(), horizontal / horizontal.sum())


def motion_kernel(length: int = 15, angle: float = 45.0) -> Tensor:
    """A straight anti-aliased line of ``length`` pixels, as a camera moving at constant speed draws.

    ``angle`` is in degrees, counter-clockwise from the horizontal. The kernel is (length, length), one larger where
    length is even. Raises OptionError unless length is an integer >= 1 and the angle finite.
    """
    require_integer("length", length)
    if not math.isfinite(angle):
        raise OptionError(f"the motion angle is {angle}; give a finite number of degrees")
    size, samples = length + 1 - length % 2, 16 * length + 1
    along = np.linspace(-(length - 1) / 2, (length - 1) / 2, samples)
    # Twelve digits: else cos(90 degrees) = 6e-17 would widen a vertical line by one empty column.
    rows = np.round(size // 2 - along * math.sin(math.radians(angle)), 12)
    columns = np.round(size // 2 + along * math.cos(math.radians(angle)), 12)
    kernel = np.zeros((size + 1, size + 1))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    for row, row_weight in ((top, 1 - down), (top + 1, down)):
        for column, column_weight in ((left, 1 - right), (left + 1, right)):
            np.add.at(kernel, (row, column), row_weight * column_weight)
    return torch.from_numpy(kernel[:size, :size] / samples)


def kernel_from_image(image: NDArray[np.generic] | Tensor) -> Tensor:
    """A kernel from a picture of one: averaged to grey, scaled to sum 1, and zero-padded to an odd size.

    ``image`` is (h, w), a NumPy array (h, w, c) or a tensor (c, h, w), of any non-negative range; c is 1 to 4, and
    the last of 2 or 4 channels is transparency, which is ignored. An even side gets a zero row below or a zero column
    at the right, so the centre stays at (h // 2, w // 2). Raises ShapeError for other shapes, NonFiniteError for NaN,
    OptionError for negative values or all zero.
    """
    values = _as_channels_last(image)
    if values.ndim == 3:
        colours = values.shape[-1] - (values.shape[-1] in (2, 4))
        values = values[..., :colours].mean(axis=-1)
    if not np.isfinite(values).all():
        raise NonFiniteError("the kernel image holds NaN or infinite values; give finite ones")
    if values.min() < 0:
        raise OptionError(f"the kernel image has the negative value {values.min()}; give non-negative ones")
    if values.sum() == 0:
        raise OptionError("the kernel image is 0 everywhere; give one with some bright pixels")
    padded = np.pad(values, [(0, 1 - side % 2) for side in values.shape])
    return torch.from_numpy(padded / padded.sum())


def _as_channels_last(image: NDArray[np.generic] | Tensor) -> NDArray[np.float64]:
    if isinstance(image, Tensor):
        values = image.detach().cpu().to(torch.float64).numpy()
        values = np.moveaxis(values, 0, -1) if values.ndim == 3 else values
    else:
        values = np.asarray(image).astype(np.float64)
    if values.ndim not in (2, 3) or values.size == 0 or (values.ndim == 3 and values.shape[-1] > 4):
        raise ShapeError(
            f"the kernel image has shape {tuple(image.shape)}; give (h, w), an array (h, w, channels) or a tensor "
            "(channels, h, w)"
        )
    return values
