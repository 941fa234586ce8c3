"""How close two images, or two measurements, are; one figure per image, never an average over a batch.

All are computed in float64 where the device has it and returned in the type of the inputs, float32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deqir.errors import NonFiniteError, ShapeError
from deqir.precision import finest_dtype

LEAST_SSIM_SIDE = 3
_SSIM_RADIUS = 5  # the 11 x 11 Gaussian window of Wang et al. 2004, sigma 1.5
_SSIM_SIGMA = 1.5


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B,), of two (B, C, H, W) batches in [0, 1]; equal images give ``inf``.

    Nothing is clamped: clamp restorations first where their range may be wider.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    dtype = _result_dtype(a, b)
    a, b = _images(a, b)
    value: Tensor = peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return value.to(dtype)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity, (B,), of two (B, C, H, W) batches in [0, 1]; equal images give 1.

    The window is the usual 11 x 11 Gaussian with sigma 1.5, averaged over every pixel with the borders mirrored, as
    torchmetrics does (scikit-image leaves a border of 5 pixels out). Where the shorter side is below 11 pixels, window
    and sigma shrink in proportion to the largest odd size that fits; at least 3 pixels are needed.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    dtype = _result_dtype(a, b)
    a, b = _images(a, b)
    side = min(a.shape[2:])
    if side < LEAST_SSIM_SIDE:
        raise ShapeError(f"ssim needs images of at least 3 x 3 pixels but got {tuple(a.shape)}; use psnr for these")
    sigma = _SSIM_SIGMA * min(1.0, (side - 1) // 2 / _SSIM_RADIUS)  # torchmetrics takes its radius from sigma
    value = structural_similarity_index_measure(a, b, sigma=sigma, data_range=1.0, reduction="none")
    assert isinstance(value, Tensor)
    return value.reshape(a.shape[0]).to(dtype)


def measurement_error(y: Tensor, y_hat: Tensor) -> Tensor:
    """Root mean square of ``y - y_hat`` per image, (B,), for measurements of any one shape (B, ...)."""
    dtype = _result_dtype(y, y_hat)
    y, y_hat = _pair(y, y_hat)
    return (y - y_hat).flatten(1).square().mean(1).sqrt().to(dtype)


def _result_dtype(a: Tensor, b: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)


def _images(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.ndim != 4:
        raise ShapeError(f"the images have shape {tuple(a.shape)}; give batches of shape (B, C, H, W)")
    return _pair(a, b)


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one dtype, float64 where the device has it: TF32 convolutions would blur the third digit of SSIM."""
    if a.shape != b.shape:
        raise ShapeError(f"the two batches have shapes {tuple(a.shape)} and {tuple(b.shape)}; make them the same")
    if a.ndim < 2 or a.numel() == 0:
        raise ShapeError(f"the batches have shape {tuple(a.shape)} and nothing to compare; give at least one image")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise NonFiniteError("one of the two batches holds NaN or infinite values; check how it was made")
    dtype = finest_dtype(a.device)
    return a.detach().to(dtype), b.detach().to(dtype)
