"""The classical restorers that deqir is compared with; all take and return float (B, C, H, W) in [0, 1].

For compressed sensing the classical restoration is the pseudo-inverse of the operator, so none is needed here.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

from deqir.errors import NonFiniteError, OptionError, ShapeError

WIENER_BALANCE = 1e-6
WIENER_BALANCE_PER_VARIANCE = 100.0


def bicubic_upsampling(y: Tensor, scale: int, size: tuple[int, int]) -> Tensor:
    """Enlarge ``scale`` times by bicubic interpolation (pixel centres aligned at half pixels) to exactly ``size``.

    ``size`` (H, W) may fall short of, or exceed, ``scale`` times the size of ``y`` by less than ``scale`` pixels at the
    bottom and right, as it does for an image whose sides are no multiples of ``scale``.
    """
    _check_batch(y)
    excess = [target - scale * have for target, have in zip(size, y.shape[2:], strict=True)]
    if scale < 1 or any(abs(extra) >= max(scale, 1) for extra in excess):
        raise ShapeError(
            f"an image of {y.shape[3]} x {y.shape[2]} pixels enlarged {scale} times cannot have "
            f"{size[1]} x {size[0]}; check scale and size"
        )
    padded = pad(y, (0, int(excess[1] > 0), 0, int(excess[0] > 0)), mode="replicate")
    full = interpolate(padded, scale_factor=float(scale), mode="bicubic", align_corners=False)
    return full[..., : size[0], : size[1]].clamp(0, 1)


def biharmonic_inpainting(y: Tensor, mask: Tensor) -> Tensor:
    """Fill where ``mask`` is 0 with the smoothest (biharmonic) surface through the pixels where it is 1.

    ``mask`` is (1 or B, 1, H, W). One sparse linear system is solved per image, with as many unknowns as hidden
    pixels: a second or two for half of 512 x 512, and time and memory grow faster than the image.
    """
    from skimage.restoration import inpaint_biharmonic

    _check_batch(y)
    _check_mask(mask, y)
    hidden = (mask == 0).expand(y.shape[0], 1, -1, -1)[:, 0].cpu().numpy()
    restored = []
    for image, holes in zip(_to_numpy(y), hidden, strict=True):
        filled = inpaint_biharmonic(image, holes, split_into_regions=False, channel_axis=0) if holes.any() else image
        restored.append(np.where(holes, filled, image))
    return _to_tensor(np.stack(restored), y)


def wiener_deconvolution(y: Tensor, kernel: Tensor, balance: float = WIENER_BALANCE) -> Tensor:
    """Wiener-Hunt deconvolution of a circular convolution with ``kernel`` (h, w), centred at (h // 2, w // 2).

    ``balance`` weighs smoothness (a Laplacian) against the data. The default suits observations without noise, even
    rounded to 16 bits: on three photographs blurred with a 5 x 5 Gaussian of sigma 10 whose coefficients below 3% are
    lost, PSNR is level (33.7 dB) from 1e-7 to 1e-6 and falls beyond. The best for 8-bit observations was 1e-4, for
    noise of sigma 0.01 it was 1e-2, and for sigma 0.05 it was 0.1.
    """
    from skimage.restoration import wiener

    _check_batch(y)
    point_spread = _full_size_kernel(kernel, y)
    if not balance > 0:
        raise OptionError(f"balance is {balance}; choose a positive number, such as {WIENER_BALANCE}")
    restored = [[wiener(plane, point_spread, balance, clip=False) for plane in image] for image in _to_numpy(y)]
    return _to_tensor(np.array(restored), y)


def non_local_means(y: Tensor, sigma: float) -> Tensor:
    """scikit-image's fast non-local means of ``y`` (B, C, H, W) with noise of standard deviation ``sigma``.

    Patches of 5x5 within 6 pixels and ``h = 0.8 sigma``, as scikit-image's gallery advises; the result is in [0, 1].
    """
    from skimage.restoration import denoise_nl_means

    _check_batch(y)
    images = np.moveaxis(_to_numpy(y), 1, -1)
    restored = [
        denoise_nl_means(image, 5, 6, h=0.8 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1).reshape(image.shape)
        for image in images  # reshaped, for it drops sides of one pixel
    ]
    return _to_tensor(np.moveaxis(np.stack(restored), -1, 1), y)


def grey_colorization(y: Tensor) -> Tensor:
    """A grey (B, 1, H, W) batch as RGB with three equal channels."""
    _check_batch(y)
    if y.shape[1] != 1:
        raise ShapeError(f"the grey batch has shape {tuple(y.shape)}; give one channel, (B, 1, H, W)")
    return y.clamp(0, 1).repeat(1, 3, 1, 1)


def _full_size_kernel(kernel: Tensor, y: Tensor) -> NDArray[np.float64]:
    """The kernel padded to the image's size, its centre at the image's.

    The padding does not change the result; without it scikit-image would take a kernel that happens to have the shape
    of a half spectrum, (H, W // 2 + 1), for one.
    """
    height, width = y.shape[2:]
    if min(height, width) < 3:
        raise ShapeError(f"the images have shape {tuple(y.shape)}; deconvolution needs at least 3 x 3 pixels")
    if kernel.ndim != 2 or kernel.shape[0] > height or kernel.shape[1] > width:
        raise ShapeError(
            f"the blur kernel has shape {tuple(kernel.shape)} for images of {height} x {width}; "
            "give a 2-D kernel no larger than the image"
        )
    if not kernel.isfinite().all() or not kernel.any():
        raise OptionError("the blur kernel is zero everywhere or holds NaN or infinite values; give another one")
    top, left = height // 2 - kernel.shape[0] // 2, width // 2 - kernel.shape[1] // 2
    padded = np.zeros((height, width))
    padded[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel.detach().cpu().double().numpy()
    return padded


def _check_mask(mask: Tensor, y: Tensor) -> None:
    if mask.ndim != 4 or mask.shape[0] not in (1, y.shape[0]) or mask.shape[1] != 1 or mask.shape[2:] != y.shape[2:]:
        raise ShapeError(
            f"the mask has shape {tuple(mask.shape)} and the images {tuple(y.shape)}; "
            "give a mask (1 or B, 1, H, W) of the same size"
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise OptionError("the mask holds values other than 0 and 1; threshold it first, 1 where a pixel is observed")
    if not mask.flatten(1).any(1).all():
        raise OptionError(
            "a mask is 0 everywhere, so nothing is observed; give a mask with 1 where a pixel is observed"
        )


def _check_batch(y: Tensor) -> None:
    if y.ndim != 4 or y.numel() == 0 or not y.is_floating_point():
        raise ShapeError(f"the images have shape {tuple(y.shape)} and type {y.dtype}; give a float batch (B, C, H, W)")
    if not y.isfinite().all():
        raise NonFiniteError("the images hold NaN or infinite values; check how they were made")


def _to_numpy(y: Tensor) -> NDArray[np.float64]:
    return y.detach().cpu().double().numpy()


def _to_tensor(restored: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(restored).clamp(0, 1).to(like)
