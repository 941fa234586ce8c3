"""A denoiser whose clean images stay in range."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deqir.priors.denoiser import Denoiser
from deqir.schedule import NoiseSchedule


@dataclass(frozen=True)
class ClippedDenoiser:
    """``inner`` with its clean estimate clipped to [-1, 1]; the predicted noise is what then is left.

    DiffPIR's published code clips (arXiv 2305.08995 does not say so), those of DDNM and DDRM do not. Values that are
    clipped have no gradient.
    """

    inner: Denoiser

    @property
    def schedule(self) -> NoiseSchedule:
        return self.inner.schedule

    @property
    def channels(self) -> int:
        return self.inner.channels

    @property
    def name(self) -> str:
        return f"{self.inner.name} (clipped)"

    def to(self, device: torch.device, dtype: torch.dtype) -> ClippedDenoiser:
        """This denoiser on ``device``, as its ``inner`` one moves there."""
        return replace(self, inner=self.inner.to(device, dtype))

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The noise (N, C, H, W) in ``x`` at ``timesteps`` (N,) that leaves a clean image in [-1, 1]."""
        alphas = self.schedule.at(timesteps, x)
        signal, noise = alphas.sqrt(), (1 - alphas).sqrt()
        clean = (x - noise * self.inner(x, timesteps)) / signal
        return (x - signal * clean.clamp(-1, 1)) / noise
