"""A diffusion prior as a deepinv denoiser."""

from __future__ import annotations

from typing import Any

import torch
from deepinv.models import Denoiser as DeepinvDenoiser
from torch import Tensor

from deqir.priors import Denoiser


class PriorDenoiser(DeepinvDenoiser):  # type: ignore[misc]
    """``denoiser(x, sigma)``: the clean image that ``prior`` sees in x, for deepinv's DDRM, DiffPIR, DPS and others.

    ``x`` (B, C, H, W) is an image in [0, 1] with Gaussian noise of standard deviation ``sigma`` in the same units, a
    number or one an image (B,). In the prior's [-1, 1] the noise level is ``2 sigma``: the network is called at the
    timestep t whose ``sqrt((1 - abar_t) / abar_t)`` is nearest to it, with the input ``(2 x - 1) / sqrt(1 + 4
    sigma^2)``, which has the scale of a state of that noise level. ``sigma`` = 0 returns x; above the schedule's
    largest noise level the last timestep is used. A grey image under a colour prior is denoised as three equal
    channels and averaged. Values outside [0, 1] are not clipped.
    """

    def __init__(self, prior: Denoiser) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: Any) -> Tensor:
        """The denoised (B, C, H, W), nominally in [0, 1]; differentiable with respect to ``x``."""
        level = 2 * self._handle_sigma(sigma, batch_size=len(x), ndim=4, device=x.device, dtype=x.dtype)
        prior = self.prior.to(x.device, torch.float64 if x.dtype == torch.float64 else torch.float32)
        state = 2 * x - 1
        grey = x.shape[1] == 1 and prior.channels == 3
        noisy = state.expand(-1, 3, -1, -1) if grey else state
        eps = prior(noisy / (1 + level.square()).sqrt(), self.timestep(level.flatten()))
        clean: Tensor = state - level * (eps.mean(1, keepdim=True) if grey else eps)
        return (clean + 1) / 2

    def timestep(self, level: Tensor) -> Tensor:
        """The timesteps (B,) int64 with the noise-to-signal ratios nearest to ``level`` (B,), in [-1, 1] units."""
        alphas = self.prior.schedule.alphas_cumprod
        levels = ((1 - alphas) / alphas).sqrt().to(level)
        return (levels - level.view(-1, 1)).abs().argmin(1)
