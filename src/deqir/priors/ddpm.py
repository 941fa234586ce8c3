"""The DDPM U-Net (arXiv 2006.11239) in the PyTorch form of pesser/pytorch_diffusion, DDIM and SDEdit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deqir.errors import UnsupportedCheckpointError
from deqir.priors.checkpoint_file import State
from deqir.priors.conversion import flattened, load_converted
from deqir.priors.denoiser import DiffusersDenoiser
from deqir.priors.networks import EXTRAS, build_network
from deqir.priors.options import CheckpointOptions

ANCHOR = "temb.dense.0.weight"
"""A tensor that every model of this family has."""

RESIDUAL = {
    "norm1": "norm1",
    "conv1": "conv1",
    "time_emb_proj": "temb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "conv_shortcut": "nin_shortcut",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
TAKEN = ("image_size", "schedule", "diffusion_steps", "rescale_timesteps", "prediction", "ema", "max_parameters")
IMAGE_SIZES = {(1, 1, 2, 2, 4, 4): 256, (1, 2, 2, 2): 32, (1, 2, 2, 2, 4): 64}
"""The image size that a row of channel multipliers stands for: LSUN and CelebA-HQ, CIFAR-10, CelebA."""


@dataclass(frozen=True)
class Layout:
    """The architecture as the tensors' names and shapes tell it; attention has one head."""

    in_channels: int
    out_channels: int
    base_channels: int
    level_channels: tuple[int, ...]
    attention_levels: tuple[bool, ...]
    residual_blocks: int
    convolved_resampling: bool


def load_ddpm(state: State, options: CheckpointOptions, source: str, name: str) -> DiffusersDenoiser:
    """The prior of one state dict of this family, in float32 on the CPU.

    Raises UnsupportedCheckpointError where it is damaged or no model of noise in images, OptionError where the
    options do not fit it.
    """
    options.refuse_others(TAKEN, f"the DDPM checkpoint {source}")
    layout = read_layout(state, source)
    schedule = options.chosen_schedule("linear", 1000)
    model = build_network(_config(layout, options, len(schedule)), source, options.max_parameters)

    def adapt(target: str, tensor: Tensor) -> Tensor:
        return flattened(tensor, target)

    load_converted(model, state, _module_table(layout), adapt, source)
    return DiffusersDenoiser(model, schedule, options.prediction or "epsilon", name)


def read_layout(state: State, source: str) -> Layout:
    """The architecture of a state dict; raises UnsupportedCheckpointError where a tensor that tells it is missing."""
    try:
        layout = _layout(state)
    except (KeyError, IndexError, ValueError) as error:
        raise UnsupportedCheckpointError(
            f"{source} looks like a DDPM model, but {error} is missing; save or download it again"
        ) from None
    if layout.out_channels not in (layout.in_channels, 2 * layout.in_channels):
        raise UnsupportedCheckpointError(
            f"{source} takes {layout.in_channels} channels and returns {layout.out_channels}; "
            "give a model that takes the noisy image alone"
        )
    return layout


def _layout(state: State) -> Layout:
    first = state["conv_in.weight"]
    levels = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("down."))
    blocks = 1 + max(int(key.split(".")[3]) for key in state if key.startswith("down.0.block."))
    return Layout(
        in_channels=first.shape[1],
        out_channels=state["conv_out.weight"].shape[0],
        base_channels=first.shape[0],
        level_channels=tuple(state[f"down.{level}.block.0.conv1.weight"].shape[0] for level in range(levels)),
        attention_levels=tuple(f"down.{level}.attn.0.q.weight" in state for level in range(levels)),
        residual_blocks=blocks,
        convolved_resampling="down.0.downsample.conv.weight" in state or levels == 1,
    )


def _config(layout: Layout, options: CheckpointOptions, timesteps: int) -> dict[str, Any]:
    """The configuration of the ``UNet2DModel`` with this architecture.

    Convolutions that halve the resolution pad below and to the right alone, which UNet2DModel does at padding 0.
    """
    multipliers = tuple(channels // layout.base_channels for channels in layout.level_channels)
    extras: dict[str, Any] = {}
    if layout.base_channels != layout.level_channels[0]:
        extras |= {"stem_channels": layout.base_channels, "timestep_channels": layout.base_channels}
    if options.rescale_timesteps:
        extras["timestep_scale"] = 1000 / timesteps
    return {
        "sample_size": options.image_size or IMAGE_SIZES.get(multipliers),
        "in_channels": layout.in_channels,
        "out_channels": layout.out_channels,
        "time_embedding_dim": 4 * layout.base_channels,
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "down_block_types": tuple("AttnDownBlock2D" if has else "DownBlock2D" for has in layout.attention_levels),
        "up_block_types": tuple("AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(layout.attention_levels)),
        "block_out_channels": layout.level_channels,
        "layers_per_block": layout.residual_blocks,
        "downsample_padding": 0 if layout.convolved_resampling else 1,
        "attention_head_dim": None,
        "attn_norm_num_groups": 32,
        "norm_eps": 1e-6,
        **({EXTRAS: extras} if extras else {}),
    }


def _module_table(layout: Layout) -> dict[str, str | None]:
    """The source's module for every module of the ``UNet2DModel``; its levels on the way up count from the top."""
    table: dict[str, str | None] = {name: name for name in ("conv_in", "conv_out")}
    table |= {"conv_norm_out": "norm_out"}
    table |= {"time_embedding.linear_1": "temb.dense.0", "time_embedding.linear_2": "temb.dense.1"}

    def block(target: str, number: int, residual: str, attention: str) -> None:
        table.update({f"{target}.resnets.{number}.{ours}": f"{residual}.{theirs}" for ours, theirs in RESIDUAL.items()})
        table.update(
            {f"{target}.attentions.{number}.{ours}": f"{attention}.{theirs}" for ours, theirs in ATTENTION.items()}
        )

    block("mid_block", 0, "mid.block_1", "mid.attn_1")
    block("mid_block", 1, "mid.block_2", "mid.attn_2")
    levels = len(layout.level_channels)
    for level in range(levels):
        down, up = f"down_blocks.{level}", f"up_blocks.{levels - 1 - level}"
        for number in range(layout.residual_blocks):
            block(down, number, f"down.{level}.block.{number}", f"down.{level}.attn.{number}")
        for number in range(layout.residual_blocks + 1):
            block(up, number, f"up.{level}.block.{number}", f"up.{level}.attn.{number}")
        convolved = layout.convolved_resampling
        table[f"{down}.downsamplers.0.conv"] = f"down.{level}.downsample.conv" if convolved else None
        table[f"{up}.upsamplers.0.conv"] = f"up.{level}.upsample.conv" if convolved else None
    return table
