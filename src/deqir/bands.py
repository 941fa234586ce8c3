"""Bands of spatial frequency: sums over them, and filters with one gain a band."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from deqir.precision import finest_dtype


@dataclass(frozen=True, eq=False)
class FrequencyBands:
    """A partition of the coefficients of a real FFT of (H, W) images by the logarithm of their frequency.

    ``size`` is (H, W), ``index`` (H, W // 2 + 1) int64 the band of every coefficient, ``radius`` its spatial frequency
    in cycles per pixel (float64 where the device has it), ``count`` the number of bands.
    """

    size: tuple[int, int]
    index: Tensor
    radius: Tensor
    count: int

    @classmethod
    def of(cls, like: Tensor, count: int) -> FrequencyBands:
        """``count`` bands for images like ``like`` (..., H, W), on its device."""
        height, width = like.shape[-2:]
        down = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
        across = torch.fft.rfftfreq(width, dtype=torch.float64)[None]
        radius = (down.square() + across.square()).sqrt()
        index = _bands(radius, count).to(like.device)
        return cls((height, width), index, radius.to(like.device, finest_dtype(like.device)), count)

    def sum(self, values: Tensor) -> Tensor:
        """Sums over the coefficients (..., H, W // 2 + 1) of every band, (..., bands)."""
        flat = values.flatten(-2)
        index = self.index.flatten().expand(flat.shape)
        return flat.new_zeros(*flat.shape[:-1], self.count).scatter_add_(-1, index, flat)

    def mean(self, values: Tensor) -> Tensor:
        """Means over the coefficients of every band, 0 in empty ones, (..., bands)."""
        sizes = torch.bincount(self.index.flatten(), minlength=self.count).clamp(min=1)
        return self.sum(values) / sizes

    def filter(self, images: Tensor, gains: Tensor) -> Tensor:
        """``images`` (..., C, H, W) with every band multiplied by its gain, ``gains`` (..., bands)."""
        gain = gains.to(images.dtype)[..., self.index].unsqueeze(-3)
        filtered: Tensor = torch.fft.irfft2(gain * torch.fft.rfft2(images), s=self.size)
        return filtered


def _bands(radius: Tensor, count: int) -> Tensor:
    """The band of every frequency: the mean in band 0, the others by the logarithm of their radius."""
    if count == 1 or radius.numel() == 1:
        return torch.zeros(radius.shape, dtype=torch.long)
    lowest = float(radius[radius > 0].min())
    reach = max(math.log(float(radius.max()) / lowest), 1e-12)
    position = (radius.clamp(min=lowest) / lowest).log() / reach * (count - 1)
    return torch.where(radius > 0, 1 + position.floor().long(), 0).clamp(max=count - 1)
