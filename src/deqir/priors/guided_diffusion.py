"""OpenAI's guided-diffusion and improved-diffusion U-Nets (arXiv 2105.05233, 2102.09672) as ``UNet2DModel``.

Also ILVR's "ffhq_10m" and the P2-weighting models, which are the same code.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from deqir.errors import OptionError, UnsupportedCheckpointError
from deqir.priors.checkpoint_file import State
from deqir.priors.conversion import attention_part, flattened, load_converted, split_heads
from deqir.priors.denoiser import DiffusersDenoiser
from deqir.priors.guided_layout import Layout, read_layout
from deqir.priors.guided_settings import Settings, published_settings
from deqir.priors.networks import EXTRAS, build_network
from deqir.priors.options import CheckpointOptions
from deqir.schedule import NoiseSchedule

RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ATTENTION = {"group_norm": "norm", "to_q": "qkv", "to_k": "qkv", "to_v": "qkv", "to_out.0": "proj_out"}
TAKEN = (
    "num_heads", "num_head_channels", "num_heads_upsample", "use_new_attention_order", "image_size", "schedule",
    "diffusion_steps", "rescale_timesteps", "prediction", "null_label", "ema",
    "max_parameters",
)  # fmt: skip


def load_guided_diffusion(state: State, options: CheckpointOptions, source: str, name: str) -> DiffusersDenoiser:
    """The prior of one guided-diffusion state dict, in float32 on the CPU.

    Raises UnsupportedCheckpointError where it is a classifier, an upsampler or damaged, or its attention heads cannot
    be known, OptionError where the options do not fit it.
    """
    options.refuse_others(TAKEN, f"the guided-diffusion checkpoint {source}")
    layout = read_layout(state, source)
    settings = _settings(layout, options, source)
    model = build_network(_config(layout, settings), source, options.max_parameters)

    def adapt(target: str, tensor: Tensor) -> Tensor:
        part = attention_part(target)
        if part is not None:
            heads = settings.heads(len(tensor) // 3, "up_blocks" in target)
            tensor = split_heads(tensor, heads, part, not settings.new_attention_order)
        return flattened(tensor, target)

    load_converted(model, state, _module_table(layout), adapt, source)
    return DiffusersDenoiser(model, settings.schedule, settings.prediction, name)


def _settings(layout: Layout, options: CheckpointOptions, source: str) -> Settings:
    """The published settings of this architecture, as far as the options leave them."""
    settings = published_settings(
        layout.base_channels, layout.multipliers, layout.residual_blocks, layout.resampling == "resnet", layout.classes
    )
    if options.num_heads is not None or options.num_head_channels is not None:
        settings = replace(settings, num_heads=options.num_heads, num_head_channels=options.num_head_channels)
    changes: dict[str, Any] = {
        "num_heads_upsample": options.num_heads_upsample,
        "new_attention_order": options.use_new_attention_order,
        "image_size": options.image_size,
        "prediction": options.prediction,
        "null_label": options.null_label,
        "rescale_timesteps": options.rescale_timesteps,
    }
    settings = replace(settings, **{key: value for key, value in changes.items() if value is not None})
    _check_heads(layout, settings, source)
    if settings.null_label is not None and not 0 <= settings.null_label < (layout.classes or 0):
        raise OptionError(f"null_label is {settings.null_label}, but {source} has {layout.classes or 0} classes")
    return replace(settings, schedule=_schedule(settings, options))


def _check_heads(layout: Layout, settings: Settings, source: str) -> None:
    if settings.num_heads is None and settings.num_head_channels is None:
        raise UnsupportedCheckpointError(
            f"the attention heads of {source} cannot be read from its tensors and it is none of the published models; "
            "give num_heads or num_head_channels as in its training flags"
        )
    for channels in _attention_channels(layout):
        for up in (False, True):
            if channels % (settings.num_head_channels or settings.heads(channels, up)):
                heads = f"heads of {settings.num_head_channels} channels" if settings.num_head_channels else "its heads"
                raise OptionError(
                    f"an attention layer of {source} has {channels} channels, which {heads} do not divide; "
                    "give num_heads or num_head_channels as in its training flags"
                )


def _attention_channels(layout: Layout) -> set[int]:
    levels = zip(layout.level_channels, layout.attention_levels, strict=True)
    return {channels for channels, attention in levels if attention} | {layout.level_channels[-1]}


def _schedule(settings: Settings, options: CheckpointOptions) -> NoiseSchedule:
    """The schedule; the code's linear one keeps its limits times 1000 / T, whatever its length T."""
    length = options.diffusion_steps or len(settings.schedule)
    if options.schedule in (None, "linear") and (options.schedule or settings.linear):
        return NoiseSchedule.linear(length, 0.1 / length, min(20 / length, 0.999))
    return options.chosen_schedule("cosine", length)


def _config(layout: Layout, settings: Settings) -> dict[str, Any]:
    """The configuration of the ``UNet2DModel`` with this architecture."""
    resnet = layout.resampling == "resnet"
    down_plain, up_plain = (
        ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if resnet else ("DownBlock2D", "UpBlock2D")
    )
    down = tuple("AttnDownBlock2D" if attention else down_plain for attention in layout.attention_levels)
    up = tuple("AttnUpBlock2D" if attention else up_plain for attention in reversed(layout.attention_levels))
    head_channels, by_path = _head_channels(layout, settings)
    extras: dict[str, Any] = {}
    if by_path:
        extras["attention_heads"] = by_path
    if layout.base_channels != layout.level_channels[0]:
        extras["timestep_channels"] = layout.base_channels
    if settings.rescale_timesteps and len(settings.schedule) != 1000:
        extras["timestep_scale"] = 1000 / len(settings.schedule)
    if settings.null_label is not None:
        extras["null_label"] = settings.null_label
    return {
        "sample_size": settings.image_size,
        "in_channels": layout.in_channels,
        "out_channels": layout.out_channels,
        "time_embedding_dim": 4 * layout.base_channels,
        "down_block_types": down,
        "up_block_types": up,
        "block_out_channels": layout.level_channels,
        "layers_per_block": layout.residual_blocks,
        "downsample_type": "resnet" if resnet else "conv",
        "upsample_type": "resnet" if resnet else "conv",
        "attention_head_dim": head_channels,
        "attn_norm_num_groups": 32,
        "resnet_time_scale_shift": "scale_shift" if layout.scale_shift else "default",
        "num_class_embeds": layout.classes,
        **({EXTRAS: extras} if extras else {}),
    }


def _head_channels(layout: Layout, settings: Settings) -> tuple[int | None, dict[str, int]]:
    """Channels per head for all attention layers (None: one head), or, where they differ, heads by module."""
    modules = {"mid_block": (layout.level_channels[-1], False)}
    for level, (channels, attention) in enumerate(zip(layout.level_channels, layout.attention_levels, strict=True)):
        if attention:
            modules[f"down_blocks.{level}"] = (channels, False)
            modules[f"up_blocks.{layout.levels - 1 - level}"] = (channels, True)
    heads = {path: settings.heads(channels, up) for path, (channels, up) in modules.items()}
    widths = {channels // heads[path] for path, (channels, _) in modules.items()}
    if len(widths) == 1:
        return widths.pop(), {}
    if set(heads.values()) == {1}:
        return None, {}
    return None, heads


def _module_table(layout: Layout) -> dict[str, str | None]:
    """guided-diffusion's module for every module of the ``UNet2DModel``."""
    blocks, table = layout.residual_blocks, dict[str, "str | None"]()
    table |= {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    table |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    table["class_embedding"] = "label_emb"

    def residual(target: str, source: str) -> None:
        table.update({f"{target}.{ours}": f"{source}.{theirs}" for ours, theirs in RESIDUAL.items()})

    def attention(target: str, source: str) -> None:
        table.update({f"{target}.{ours}": f"{source}.{theirs}" for ours, theirs in ATTENTION.items()})

    def resample(target: str, source: str, conv: str) -> None:
        if layout.resampling == "resnet":
            residual(target, source)
        else:
            table[f"{target}.conv"] = f"{source}.{conv}" if layout.resampling == "conv" else None

    residual("mid_block.resnets.0", "middle_block.0")
    attention("mid_block.attentions.0", "middle_block.1")
    residual("mid_block.resnets.1", "middle_block.2")
    for level in range(layout.levels):
        start, down = 1 + level * (blocks + 1), f"down_blocks.{level}"
        for block in range(blocks):
            residual(f"{down}.resnets.{block}", f"input_blocks.{start + block}.0")
            attention(f"{down}.attentions.{block}", f"input_blocks.{start + block}.1")
        resample(f"{down}.downsamplers.0", f"input_blocks.{start + blocks}.0", "op")
        start, up = level * (blocks + 1), f"up_blocks.{level}"
        for block in range(blocks + 1):
            residual(f"{up}.resnets.{block}", f"output_blocks.{start + block}.0")
            attention(f"{up}.attentions.{block}", f"output_blocks.{start + block}.1")
        position = 2 if layout.attention_levels[layout.levels - 1 - level] else 1
        resample(f"{up}.upsamplers.0", f"output_blocks.{start + blocks}.{position}", "conv")
    return table
