"""Continuous score models with exploding variance (arXiv 2011.13456), such as google/ncsnpp-*."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deqir.priors.denoiser import check_input, move_network, run_network
from deqir.schedule import NoiseSchedule

if TYPE_CHECKING:
    from diffusers import UNet2DModel


@dataclass(frozen=True, eq=False)
class ScoreDenoiser:
    """A ``UNet2DModel`` that returns the score of ``u + sigma noise`` at noise level sigma, u an image in [0, 1].

    ``x_t = sqrt(a) x + sqrt(1 - a) noise`` with x = 2u - 1 is shown to it as ``(x_t / sqrt(a) + 1) / 2``, which has
    ``sigma = sqrt((1 - a) / a) / 2``; the noise is ``-sigma`` times the score.
    """

    model: UNet2DModel
    schedule: NoiseSchedule
    name: str
    compute_dtype: torch.dtype = torch.float32

    @property
    def channels(self) -> int:
        return int(self.model.config["in_channels"])

    def to(self, device: torch.device, dtype: torch.dtype) -> ScoreDenoiser:
        """This denoiser on ``device``; half types keep float32 weights and compute under autocast."""
        move_network(self.model, device, dtype)
        return replace(self, compute_dtype=dtype)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The predicted noise (N, C, H, W) in ``x`` at ``timesteps`` (N,)."""
        check_input(x, self.channels, self.name)
        alphas = self.schedule.alphas_cumprod
        sigmas = (((1 - alphas) / alphas).sqrt() / 2).to(x.dtype).to(x.device)[timesteps]
        signal = alphas.sqrt().to(x.dtype).to(x.device)[timesteps].view(-1, 1, 1, 1)
        shown = (x / signal + 1) / 2
        score = run_network(self.model, shown, sigmas.to(self.model.dtype), self.compute_dtype)
        return -sigmas.view(-1, 1, 1, 1) * score[:, : self.channels]
