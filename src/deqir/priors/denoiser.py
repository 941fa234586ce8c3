"""The one interface of a prior, ``eps = denoiser(x_t, t)``, and the diffusers network behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from deqir.errors import ShapeError
from deqir.schedule import NoiseSchedule

if TYPE_CHECKING:
    from diffusers import UNet2DModel

Prediction = Literal["epsilon", "sample", "v_prediction"]

ATTENTION_FREE_TILE = 256
"""The least tile of a network that is purely convolutional: it takes any size, and larger tiles waste less overlap."""


@runtime_checkable
class Denoiser(Protocol):
    """A pretrained diffusion model as a noise predictor."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule of the training."""

    @property
    def channels(self) -> int:
        """C, the image channels."""

    @property
    def name(self) -> str:
        """What results call this prior."""

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The predicted noise (N, C, H, W) in noisy images ``x`` of that shape at ``timesteps`` (N,) int64.

        ``x`` is ``sqrt(abar_t) image + sqrt(1 - abar_t) noise`` with the image in [-1, 1]; H and W are any size.
        """

    def to(self, device: torch.device, dtype: torch.dtype) -> Denoiser:
        """This denoiser on ``device``, computing in ``dtype`` and returning the dtype of its input."""


@dataclass(frozen=True, eq=False)
class DiffusersDenoiser:
    """A diffusers ``UNet2DModel`` that predicts the noise, the clean image or the velocity.

    Images whose sides its downsampling does not divide are padded by reflection and cropped back.
    ``compute_dtype`` bfloat16 or float16 runs the network under autocast; the states stay in their own precision.
    """

    model: UNet2DModel
    schedule: NoiseSchedule
    prediction: Prediction = "epsilon"
    name: str = "diffusers"
    compute_dtype: torch.dtype = torch.float32

    @property
    def channels(self) -> int:
        return int(self.model.config["in_channels"])

    @property
    def size_multiple(self) -> int:
        """What both sides of the network's input must be a multiple of."""
        return int(2 ** (len(self.model.config["block_out_channels"]) - 1))

    @property
    def tile_size(self) -> int:
        """The side of the tiles that large images are cut into: that of its training images, without attention 256."""
        side = self.model.config.get("sample_size") or ATTENTION_FREE_TILE
        side = int(side if isinstance(side, int) else max(side))
        kinds = (*self.model.config["down_block_types"], *self.model.config["up_block_types"])
        return side if any("Attn" in kind for kind in kinds) else max(side, ATTENTION_FREE_TILE)

    def to(self, device: torch.device, dtype: torch.dtype) -> DiffusersDenoiser:
        """This denoiser on ``device``; half types keep float32 weights and compute under autocast."""
        weights = torch.float64 if dtype == torch.float64 else torch.float32
        # Not the model's own ``to``: diffusers' prints advice about dtypes that does not apply here.
        move = cast("Any", torch.nn.Module.to)
        move(self.model, device=device, dtype=weights, memory_format=torch.channels_last)
        return DiffusersDenoiser(self.model, self.schedule, self.prediction, self.name, dtype)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The predicted noise (N, C, H, W) in ``x`` at ``timesteps`` (N,)."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ShapeError(f"the prior {self.name} takes (N, {self.channels}, H, W) tensors, not {tuple(x.shape)}")
        output = self._network(x, timesteps)
        if self.prediction == "epsilon":
            return output
        alphas = self.schedule.alphas_cumprod.to(x.device)[timesteps].to(x.dtype).view(-1, 1, 1, 1)
        if self.prediction == "sample":
            return (x - alphas.sqrt() * output) / (1 - alphas).sqrt()
        return alphas.sqrt() * output + (1 - alphas).sqrt() * x

    def _network(self, x: Tensor, timesteps: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        padded = pad_to_multiple(x, self.size_multiple).to(memory_format=torch.channels_last)
        half = self.compute_dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(x.device.type, self.compute_dtype if half else None, enabled=half):
            output: Tensor = self.model(padded.to(self.model.dtype), timesteps).sample
        return output[:, : self.channels, :height, :width].to(x.dtype)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """``x`` (N, C, H, W) extended right and down by reflection until ``multiple`` divides H and W."""
    for axis in (-2, -1):
        size = x.shape[axis]
        padded = -(-size // multiple) * multiple
        if padded != size:
            x = x.index_select(axis, reflected_indices(size, padded).to(x.device))
    return x


def reflected_indices(size: int, padded: int) -> Tensor:
    """The positions 0 .. size-1, then back and forth without repeating the edge, ``padded`` in all."""
    period = max(1, 2 * size - 2)
    index = torch.arange(padded) % period
    return torch.where(index < size, index, period - index)
