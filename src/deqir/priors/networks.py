"""Building the one network class, diffusers' ``UNet2DModel``, and loading weights into it strictly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deqir.errors import UnsupportedCheckpointError
from deqir.priors.checkpoint_file import State

if TYPE_CHECKING:
    from diffusers import UNet2DModel

EXTRAS = "deqir"
"""The key of config.json with what ``UNet2DModel`` has no argument for."""

DEEPEST = 500
"""Residual blocks on the way down, at most; each costs memory before it has a single weight."""

SHOWN = 5
"""Tensor names in an error message, at most."""


def build_network(config: Mapping[str, Any], source: str, max_parameters: int) -> UNet2DModel:
    """The network of ``config``, in evaluation mode and without gradients for its weights.

    ``config["deqir"]`` may hold ``attention_heads`` (heads of all attention layers below a module, by its path),
    ``stem_channels`` and ``timestep_channels`` (of the first convolution and of the sinusoidal embedding, where the
    first level has another number), ``timestep_scale`` (what the timestep is multiplied by) and ``null_label``.

    Raises UnsupportedCheckpointError, naming ``source``, also for more than ``max_parameters`` weights.
    """
    from diffusers import UNet2DModel

    arguments = {key: value for key, value in config.items() if key != EXTRAS}
    extras = dict(config.get(EXTRAS) or {})
    try:
        _refuse_huge(arguments, max_parameters)
        model = UNet2DModel.from_config(arguments)
        _set_timestep_embedding(model, extras)
        if "stem_channels" in extras:
            _set_stem(model, int(extras["stem_channels"]))
        for path, heads in extras.get("attention_heads", {}).items():
            _set_heads(model.get_submodule(path), heads)
    except (TypeError, ValueError, LookupError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UnsupportedCheckpointError(f"{source} describes no UNet2DModel that can be built: {reason}") from None
    if extras:
        model.register_to_config(**{EXTRAS: extras})
    return model.eval().requires_grad_(False)


def _refuse_huge(arguments: Mapping[str, Any], max_parameters: int) -> None:
    """Raise ValueError for a network of more than ``max_parameters`` weights or ``DEEPEST`` blocks, unbuilt."""
    from diffusers import UNet2DModel

    blocks = int(arguments.get("layers_per_block", 2)) * len(arguments.get("block_out_channels", ()))
    if blocks > DEEPEST:
        raise ValueError(
            f"it has {blocks} residual blocks on the way down, more than {DEEPEST}; check where it is from"
        )
    with torch.device("meta"):
        count = sum(weight.numel() for weight in UNet2DModel.from_config(arguments).parameters())
    if count > max_parameters:
        raise ValueError(f"it has {count} parameters; raise max_parameters above {max_parameters} if you trust it")


def _set_heads(module: torch.nn.Module, heads: int) -> None:
    """Give every attention layer in ``module`` that many heads; UNet2DModel knows channels per head alone."""
    from diffusers.models.attention_processor import Attention

    for layer in module.modules():
        if isinstance(layer, Attention):
            if heads < 1 or layer.inner_dim % heads:
                raise ValueError(f"{heads} attention heads do not divide {layer.inner_dim} channels")
            layer.heads = heads
            layer.scale = (layer.inner_dim // heads) ** -0.5


def _set_timestep_embedding(model: UNet2DModel, extras: Mapping[str, Any]) -> None:
    if "timestep_channels" in extras:
        first = model.time_embedding.linear_1
        model.time_proj.num_channels = int(extras["timestep_channels"])
        model.time_embedding.linear_1 = torch.nn.Linear(model.time_proj.num_channels, first.out_features)
    if "timestep_scale" in extras:
        model.time_proj.scale = float(extras["timestep_scale"])


def _set_stem(model: UNet2DModel, channels: int) -> None:
    """Give the first convolution that many channels, and the two residual blocks that take what it returns."""
    first = model.conv_in
    model.conv_in = torch.nn.Conv2d(first.in_channels, channels, 3, padding=1)
    down, up = model.down_blocks[0].resnets, model.up_blocks[-1].resnets
    up[-1] = _with_inputs(up[-1], up[-1].in_channels - first.out_channels + channels)
    down[0] = _with_inputs(down[0], channels)


def _with_inputs(block: Any, channels: int) -> torch.nn.Module:
    """A new residual block like ``block`` for that many input channels."""
    from diffusers.models.resnet import ResnetBlock2D

    wider: torch.nn.Module = ResnetBlock2D(
        in_channels=channels,
        out_channels=block.out_channels,
        temb_channels=block.time_emb_proj.in_features,
        groups=block.norm1.num_groups,
        eps=block.norm1.eps,
        time_embedding_norm=block.time_embedding_norm,
    )
    return wider


def resampling_kernel(shape: torch.Size, target: str) -> Tensor:
    """The 3x3 convolution (C, C, 3, 3) that does what resampling without one does, or its bias (C,), zero.

    ``downsamplers``: the mean of 2x2 pixels, with stride 2 and one pixel of padding; ``upsamplers``: nothing.
    """
    kernel = torch.zeros(shape)
    if kernel.ndim == 4:
        channel = torch.arange(shape[0])
        if "downsamplers" in target:
            kernel[channel, channel, 1:, 1:] = 0.25
        else:
            kernel[channel, channel, 1, 1] = 1.0
    return kernel


def load_weights(model: torch.nn.Module, weights: State, source: str) -> None:
    """Load ``weights``, tensors of exactly the model's names and shapes, as float32.

    Raises UnsupportedCheckpointError, naming ``source`` and what is missing, unexpected or of another shape.
    """
    own = model.state_dict()
    reshaped = [key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape]
    refuse_misfits(own.keys() - weights.keys(), weights.keys() - own.keys(), reshaped, source)
    model.load_state_dict({key: value.float() for key, value in weights.items()})


def refuse_misfits(missing: Iterable[str], unexpected: Iterable[str], reshaped: Iterable[str], source: str) -> None:
    """Raise UnsupportedCheckpointError where one of the three has a name."""
    found = {"missing": sorted(missing), "unexpected": sorted(unexpected), "of another shape": sorted(reshaped)}
    problems = [
        f"{word}: {', '.join(keys[:SHOWN])}{' ...' if len(keys) > SHOWN else ''}"
        for word, keys in found.items()
        if keys
    ]
    if problems:
        raise UnsupportedCheckpointError(
            f"the weights in {source} do not fit its architecture ({'; '.join(problems)}); save or download it again"
        )
