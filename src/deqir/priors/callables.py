"""Any network or function ``(x, t)`` as a prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deqir.errors import ShapeError
from deqir.priors.denoiser import (
    Denoiser,
    DiffusersDenoiser,
    Prediction,
    check_input,
    in_precision,
    move_network,
    noise_from,
)
from deqir.priors.options import CheckpointOptions
from deqir.schedule import NoiseSchedule

TAKEN = ("schedule", "diffusion_steps", "prediction", "channels")


@dataclass(frozen=True, eq=False)
class CallableDenoiser:
    """``function(x, t)`` that predicts noise, clean image or velocity: a torch module or any callable.

    x (N, C, H, W) and t (N,) int64 go in; (N, C, H, W) comes out, or twice the channels, of which the first half
    counts, or an object with that tensor as ``sample``. A module is moved and runs in the dtype asked for; another
    callable is called as it is.
    """

    function: Callable[[Tensor, Tensor], Any]
    schedule: NoiseSchedule
    channels: int = 3
    prediction: Prediction = "epsilon"
    name: str = "callable"
    compute_dtype: torch.dtype = torch.float32

    def to(self, device: torch.device, dtype: torch.dtype) -> CallableDenoiser:
        """This denoiser on ``device``; half types keep float32 weights and compute under autocast."""
        if isinstance(self.function, torch.nn.Module):
            move_network(self.function, device, dtype)
        return replace(self, compute_dtype=dtype)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The predicted noise (N, C, H, W) in ``x`` at ``timesteps`` (N,)."""
        check_input(x, self.channels, self.name)
        given = x.to(_dtype_of(self.function, x.dtype))
        output = in_precision(self._checked_call, self.compute_dtype, given, timesteps)
        alphas = self.schedule.at(timesteps, x)
        return noise_from(output[:, : self.channels].to(x.dtype), x, alphas, self.prediction)

    def _checked_call(self, x: Tensor, timesteps: Tensor) -> Tensor:
        answer = self.function(x, timesteps)
        output = getattr(answer, "sample", answer)
        if not isinstance(output, Tensor) or output.shape not in (x.shape, _doubled(x)):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(answer).__name__
            raise ShapeError(f"the prior {self.name} returned {shape} for {tuple(x.shape)}; return one of that shape")
        return output


def _doubled(x: Tensor) -> torch.Size:
    return torch.Size((x.shape[0], 2 * x.shape[1], *x.shape[2:]))


def _dtype_of(function: object, fallback: torch.dtype) -> torch.dtype:
    """The dtype of a module's weights, which its input must have."""
    weights = function.parameters() if isinstance(function, torch.nn.Module) else iter(())
    return next((weight.dtype for weight in weights if weight.is_floating_point()), fallback)


def wrap_callable(function: Callable[..., Any], options: CheckpointOptions) -> Denoiser:
    """``function`` as a prior: DDPM's linear schedule, three channels and noise prediction unless options say other.

    A diffusers ``UNet2DModel`` becomes a DiffusersDenoiser, with its own number of channels.
    """
    from diffusers import UNet2DModel

    name = (
        type(function).__name__ if isinstance(function, torch.nn.Module) else getattr(function, "__name__", "callable")
    )
    schedule, prediction = options.chosen_schedule("linear", 1000), options.prediction or "epsilon"
    if isinstance(function, UNet2DModel):
        options.refuse_others(("null_label", *TAKEN[:-1]), f"the network {name}")
        return DiffusersDenoiser(function.eval(), schedule, prediction, name)
    options.refuse_others(TAKEN, f"the callable {name}")
    if isinstance(function, torch.nn.Module):
        function.eval()
    return CallableDenoiser(function, schedule, options.channels or 3, prediction, name)
