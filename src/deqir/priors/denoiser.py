"""The one interface of a prior, ``eps = denoiser(x_t, t)``, and the diffusers network behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from deqir.errors import OptionError, ShapeError
from deqir.schedule import NoiseSchedule

if TYPE_CHECKING:
    from diffusers import UNet2DModel

Prediction = Literal["epsilon", "sample", "v_prediction"]

HALF_TYPES = (torch.bfloat16, torch.float16)

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

    Of twice as many output channels as image channels (a learned variance) the first half counts. Images whose sides
    its downsampling does not divide are padded by reflection and cropped back.
    ``compute_dtype`` bfloat16 or float16 runs the network under autocast, and images that overflow there once more in
    float32; the states stay in their own precision. ``network(images, conditioning, ...)``, where given, is what is
    called in place of the model: the same, compiled.
    """

    model: UNet2DModel
    schedule: NoiseSchedule
    prediction: Prediction = "epsilon"
    name: str = "diffusers"
    compute_dtype: torch.dtype = torch.float32
    network: Callable[..., Tensor] | None = None

    @property
    def channels(self) -> int:
        return int(self.model.config["in_channels"])

    @property
    def classes(self) -> int | None:
        """The number of class labels that the network is conditional on; None: unconditional."""
        classes = self.model.config.get("num_class_embeds")
        return None if classes is None else int(classes)

    @property
    def image_size(self) -> int | None:
        """Pixels a side of the images that the network was trained on, where its configuration says so."""
        size = self.model.config.get("sample_size")
        return size if isinstance(size, int) else None

    @property
    def tile_size(self) -> int:
        """The side of the tiles that large images are cut into: that of its training images, without attention 256."""
        side = self.model.config.get("sample_size") or ATTENTION_FREE_TILE
        side = int(side if isinstance(side, int) else max(side))
        kinds = (*self.model.config["down_block_types"], *self.model.config["up_block_types"])
        return side if any("Attn" in kind for kind in kinds) else max(side, ATTENTION_FREE_TILE)

    def to(self, device: torch.device, dtype: torch.dtype) -> DiffusersDenoiser:
        """This denoiser on ``device``; half types keep float32 weights and compute under autocast."""
        move_network(self.model, device, dtype)
        return replace(self, compute_dtype=dtype)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The predicted noise (N, C, H, W) in ``x`` at ``timesteps`` (N,).

        Raises OptionError where the network is class-conditional: ``deqir.priors.with_label`` chooses a class.
        """
        if self.classes is not None:
            raise OptionError(
                f"the prior {self.name} is conditional on {self.classes} classes; choose one with label, "
                f"0 to {self.classes - 1}"
            )
        return self.predict(x, timesteps)

    def predict(self, x: Tensor, timesteps: Tensor, label: int | None = None) -> Tensor:
        """The predicted noise (N, C, H, W) in ``x`` at ``timesteps`` (N,), all images of class ``label``."""
        check_input(x, self.channels, self.name)
        labels = None if label is None else torch.full((len(x),), label, device=x.device)
        output = run_network(self.model, x, timesteps, self.compute_dtype, labels, self.network)
        alphas = self.schedule.at(timesteps, x)
        return noise_from(output[:, : self.channels], x, alphas, self.prediction)


def check_input(x: Tensor, channels: int, name: str) -> None:
    """Raise ShapeError unless ``x`` is a batch of images with ``channels`` channels."""
    if x.ndim != 4 or x.shape[1] != channels:
        raise ShapeError(f"the prior {name} takes (N, {channels}, H, W) tensors, not {tuple(x.shape)}")


def noise_from(output: Tensor, x: Tensor, alphas: Tensor, prediction: Prediction) -> Tensor:
    """The noise in ``x`` (N, C, H, W) from a network's ``output`` at signal levels ``alphas`` (N, 1, 1, 1)."""
    if prediction == "epsilon":
        return output
    if prediction == "sample":
        return (x - alphas.sqrt() * output) / (1 - alphas).sqrt()
    return alphas.sqrt() * output + (1 - alphas).sqrt() * x


def move_network(model: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move ``model`` to ``device``, its weights to float64 if that is ``dtype``, else to float32."""
    weights = torch.float64 if dtype == torch.float64 else torch.float32
    # Not the model's own ``to``: diffusers' prints advice about dtypes that does not apply here.
    move = cast("Any", torch.nn.Module.to)
    move(model, device=device, dtype=weights, memory_format=torch.channels_last)


def run_network(
    model: UNet2DModel,
    x: Tensor,
    conditioning: Tensor,
    compute_dtype: torch.dtype,
    labels: Tensor | None = None,
    network: Callable[..., Tensor] | None = None,
) -> Tensor:
    """The output (N, C', H, W) of ``model`` for ``x`` (N, C, H, W), which is padded by reflection and cropped back.

    ``conditioning`` (N,): timesteps or noise levels; ``labels`` (N,) int64: classes. bfloat16 and float16 run as
    ``in_precision`` says. ``network`` is called in place of the model where it is given.
    """
    height, width = x.shape[-2:]
    multiple = int(2 ** (len(model.config["block_out_channels"]) - 1))
    padded = pad_to_multiple(x, multiple).to(memory_format=torch.channels_last)

    def call(images: Tensor, levels: Tensor, *classes: Tensor) -> Tensor:
        if network is not None:
            return network(images, levels, *classes)
        output: Tensor = model(images, levels, *classes).sample
        return output

    inputs = (padded.to(model.dtype), conditioning, *([] if labels is None else [labels]))
    return in_precision(call, compute_dtype, *inputs)[..., :height, :width].to(x.dtype)


def in_precision(call: Callable[..., Tensor], compute_dtype: torch.dtype, *inputs: Tensor) -> Tensor:
    """``call(*inputs)`` (N, ...) for inputs of N entries, under autocast where ``compute_dtype`` is a half type.

    Entries that come out NaN or infinite there, as a float16 activation beyond 65504 makes them, are computed again
    without autocast. Where the result can be differentiated, the others are computed once more without them: through
    what overflowed even a gradient of zero would come back as NaN.
    """
    if compute_dtype not in HALF_TYPES:
        return call(*inputs)
    device = inputs[0].device.type
    with torch.autocast(device, compute_dtype):
        output = call(*inputs)
    lost = (~output.isfinite()).flatten(1).any(1)
    overflowed, others = (rows.nonzero().flatten() for rows in (lost, ~lost))
    if not len(overflowed):
        return output
    with torch.autocast(device, enabled=False):
        repeated = call(*(values[overflowed] for values in inputs))
    if output.requires_grad:
        blank = torch.zeros_like(output)
        del output
        with torch.autocast(device, compute_dtype):
            output = blank.index_copy(0, others, call(*(values[others] for values in inputs))) if len(others) else blank
    return output.to(repeated.dtype).index_copy(0, overflowed, repeated)


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
