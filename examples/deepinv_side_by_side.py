"""DDRM, DiffPIR and DPS of deepinv and DeqIR on one physics, with one prior: a table for docs/deepinv.md.

Needs pip install "deqir[deepinv]"; about two minutes on two CPU cores. The seconds depend on what
else the machine does; those of docs/deepinv.md are from a quieter one than those kept here.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import deepinv
import numpy as np
import torch
from torch import Tensor

import deqir
from deqir.demo import demo_photo
from deqir.integrations.deepinv import DeqIR, PriorDenoiser

NOISE = 0.05


@dataclass
class CountingPrior:
    """A prior that counts its network calls, and the images in each."""

    prior: deqir.Denoiser
    calls: list[int] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prior, name)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.calls.append(len(x))
        return self.prior(x, timesteps)

    def to(self, device: torch.device, dtype: torch.dtype) -> CountingPrior:
        self.prior = self.prior.to(device, dtype)
        return self


def methods(prior: CountingPrior, steps: int) -> dict[str, Callable[[], torch.nn.Module]]:
    """Each method with its default settings, but for the number of steps and the guidance of DPS.

    Its default guidance has a weight made for 1000 steps; the annealed one needs no tuning.
    """
    denoiser = PriorDenoiser(prior)
    sigmas = np.linspace(1, 0, steps + 1)
    return {
        "DDRM (deepinv)": lambda: deepinv.sampling.DDRM(denoiser, sigmas=sigmas),
        "DiffPIR (deepinv)": lambda: deepinv.sampling.DiffPIR(denoiser, deepinv.optim.L2(), max_iter=steps),
        "DPS (deepinv)": lambda: deepinv.sampling.DPS(denoiser, num_steps=steps + 1, guidance="annealed"),
        "DeqIR, serial": lambda: DeqIR(prior, steps=steps, solver="serial"),
        "DeqIR, parallel": lambda: DeqIR(prior, steps=steps, solver="preconditioned"),
    }


def main(steps: int = 100, side: int = 64) -> None:
    """Print one row a method, for a square crop of ``side`` pixels of the bundled photo."""
    torch.manual_seed(0)
    truth = demo_photo()[..., 60 : 60 + side, 40 : 40 + side]  # (1, 3, side, side), values in [0, 1]
    physics = deepinv.physics.Inpainting(
        img_size=truth.shape[1:], mask=0.5, noise_model=deepinv.physics.GaussianNoise(NOISE)
    )
    y = physics(truth)
    prior = CountingPrior(deqir.load_prior())
    print("| method | PSNR (dB) | SSIM | network evaluations | sequential calls | seconds |")
    print("|---|---|---|---|---|---|")
    for name, make in methods(prior, steps).items():
        torch.manual_seed(0)
        model, started = make(), time.perf_counter()
        prior.calls.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = model(y, physics).detach().clamp(0, 1).float()
        seconds = time.perf_counter() - started
        sequential = model.restoration.stats.sweeps[0] if isinstance(model, DeqIR) else len(prior.calls)
        quality = f"{float(deqir.psnr(image, truth)[0]):.2f} | {float(deqir.ssim(image, truth)[0]):.3f}"
        print(f"| {name} | {quality} | {sum(prior.calls)} | {sequential} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
