"""The architecture of a guided-diffusion U-Net, read off its tensors' names and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deqir.errors import UnsupportedCheckpointError
from deqir.priors.checkpoint_file import State

ANCHOR = "input_blocks.0.0.weight"
"""A tensor that every model of this family has."""

Resampling = Literal["resnet", "conv", "plain"]
"""Between levels: inside a residual block, a strided convolution, or pooling and repetition without weights."""


@dataclass(frozen=True)
class Layout:
    """The architecture as the tensors' names and shapes tell it.

    Every level has ``residual_blocks`` blocks on the way down and one more on the way up, and attention after each of
    them or none.
    """

    in_channels: int
    out_channels: int
    base_channels: int
    level_channels: tuple[int, ...]
    attention_levels: tuple[bool, ...]
    residual_blocks: int
    resampling: Resampling
    scale_shift: bool
    classes: int | None

    @property
    def levels(self) -> int:
        """The number of resolutions."""
        return len(self.level_channels)

    @property
    def multipliers(self) -> tuple[float, ...]:
        """The channels of each level in units of the base channels."""
        return tuple(channels / self.base_channels for channels in self.level_channels)


def read_layout(state: State, source: str) -> Layout:
    """The architecture of a state dict; raises UnsupportedCheckpointError where it is no image-to-noise U-Net."""
    if "out.2.weight" not in state or not any(key.startswith("output_blocks.") for key in state):
        raise UnsupportedCheckpointError(f"{source} is a classifier or half a model; give the diffusion model itself")
    try:
        return _layout(state, source)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise UnsupportedCheckpointError(
            f"{source} looks like a guided-diffusion model, but {error} is missing; save or download it again"
        ) from None


def _layout(state: State, source: str) -> Layout:
    first, last = state[ANCHOR], state["out.2.weight"]
    if first.ndim != 4:
        raise UnsupportedCheckpointError(f"{source} has {first.ndim - 2}-dimensional convolutions; deqir takes images")
    total = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("output_blocks."))
    residual_blocks, resampling = _resampling(state, total)
    starts = [1 + level * (residual_blocks + 1) for level in range(total // (residual_blocks + 1))]
    layout = Layout(
        in_channels=first.shape[1],
        out_channels=last.shape[0],
        base_channels=state["time_embed.0.weight"].shape[1],
        level_channels=tuple(state[f"input_blocks.{start}.0.out_layers.3.weight"].shape[0] for start in starts),
        attention_levels=tuple(f"input_blocks.{start}.1.qkv.weight" in state for start in starts),
        residual_blocks=residual_blocks,
        resampling=resampling,
        scale_shift=state["middle_block.0.emb_layers.1.weight"].shape[0]
        == 2 * state["middle_block.0.out_layers.3.weight"].shape[0],
        classes=len(state["label_emb.weight"]) if "label_emb.weight" in state else None,
    )
    if layout.out_channels not in (layout.in_channels, 2 * layout.in_channels):
        raise UnsupportedCheckpointError(
            f"{source} takes {layout.in_channels} channels and returns {layout.out_channels}, as an upsampler does; "
            "give a model that takes the noisy image alone"
        )
    if first.shape[0] != layout.level_channels[0]:
        raise UnsupportedCheckpointError(
            f"the first convolution of {source} has {first.shape[0]} channels and its first level "
            f"{layout.level_channels[0]}, which guided-diffusion does not build; wrap the model as a callable"
        )
    return layout


def _resampling(state: State, total: int) -> tuple[int, Resampling]:
    """How many residual blocks a level has, and what changes the resolution between levels.

    The first output block that also enlarges ends the lowest level; resampling without weights leaves a gap among the
    input blocks instead. A model of one level has neither.
    """
    for block in range(total):
        for position in (1, 2):
            if f"output_blocks.{block}.{position}.in_layers.0.weight" in state:
                return block, "resnet"
            if f"output_blocks.{block}.{position}.conv.weight" in state:
                return block, "conv"
    for block in range(1, total):
        if f"input_blocks.{block}.0.in_layers.0.weight" not in state:
            return block - 1, "plain"
    return total - 1, "plain"
