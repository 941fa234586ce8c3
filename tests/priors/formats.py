"""Checkpoint formats, each as one function: which tensors, of which shape, in which order of operations.

A function is run once on empty ``Weights`` to make a random state dict of its format, then on that to predict. Sources:
DDPM (arXiv 2006.11239, app. B), improved DDPM (2102.09672), guided diffusion (2105.05233, sec. 3, app. H) and the
tensor names of the published files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


class Weights(dict):
    """A state dict that makes a random tensor where one is first asked for."""

    def __call__(self, name: str, *shape: int, around: float = 0.0) -> Tensor:
        if name not in self:
            scale = 0.2 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5
            self[name] = torch.randn(*shape) * scale + around
        assert self[name].shape == shape, name
        return self[name]

    def conv(self, name: str, x: Tensor, channels: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> Tensor:
        weight = self(f"{name}.weight", channels, x.shape[1], kernel, kernel)
        return functional.conv2d(x, weight, self(f"{name}.bias", channels), stride, padding if kernel == 3 else 0)

    def linear(self, name: str, x: Tensor, channels: int) -> Tensor:
        return functional.linear(x, self(f"{name}.weight", channels, x.shape[1]), self(f"{name}.bias", channels))

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        channels = x.shape[1]
        weight = self(f"{name}.weight", channels, around=1.0)
        return functional.group_norm(x, 32, weight, self(f"{name}.bias", channels), eps)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention over pixels; (..., channels, pixels)."""
    return v @ torch.softmax(q.mT @ k / math.sqrt(q.shape[-2]), -1).mT


@dataclass(frozen=True)
class Guided:
    """The flags of guided-diffusion that a format test varies."""

    base: int = 32
    multipliers: tuple[float, ...] = (1, 2)
    attention: tuple[bool, ...] = (False, True)
    blocks: int = 1
    channels: int = 3
    learn_sigma: bool = False
    heads: int | None = None
    head_channels: int | None = None
    heads_up: int | None = None
    new_order: bool = False
    scale_shift: bool = True
    resampling: str = "resnet"
    classes: int | None = None
    timestep_scale: float = 1.0


def guided(w: Weights, c: Guided, x: Tensor, t: Tensor, label: int | None = None) -> Tensor:
    """guided-diffusion's U-Net; without "resnet" resampling it is improved-diffusion's."""
    angles = (
        t[:, None].float() * c.timestep_scale * torch.exp(-math.log(1e4) * torch.arange(c.base // 2) / (c.base // 2))
    )
    emb = functional.silu(w.linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], 1), 4 * c.base))
    emb = w.linear("time_embed.2", emb, 4 * c.base)
    if c.classes is not None:
        emb = emb + w("label_emb.weight", c.classes, 4 * c.base)[label]

    def residual(name: str, h: Tensor, channels: int, resize: str | None = None) -> Tensor:
        inner = functional.silu(w.norm(f"{name}.in_layers.0", h, 1e-5))
        inner, h = resized(inner, resize), resized(h, resize)
        inner = w.conv(f"{name}.in_layers.2", inner, channels)
        told = w.linear(f"{name}.emb_layers.1", functional.silu(emb), (1 + c.scale_shift) * channels)[:, :, None, None]
        if c.scale_shift:
            scale, shift = told.chunk(2, 1)
            inner = w.norm(f"{name}.out_layers.0", inner, 1e-5) * (1 + scale) + shift
        else:
            inner = w.norm(f"{name}.out_layers.0", inner + told, 1e-5)
        inner = w.conv(f"{name}.out_layers.3", functional.silu(inner), channels)
        if h.shape[1] != channels:
            h = w.conv(f"{name}.skip_connection", h, channels, kernel=1)
        return h + inner

    def pointwise(name: str, flat: Tensor, channels: int) -> Tensor:
        return functional.conv1d(flat, w(f"{name}.weight", channels, flat.shape[1], 1), w(f"{name}.bias", channels))

    def attention(name: str, h: Tensor, up: bool = False) -> Tensor:
        n, channels, *size = h.shape
        heads = channels // c.head_channels if c.head_channels else (up and c.heads_up) or c.heads
        flat = w.norm(f"{name}.norm", h, 1e-5).flatten(2)
        qkv = pointwise(f"{name}.qkv", flat, 3 * channels)
        if c.new_order:
            q, k, v = qkv.reshape(n, 3, heads, channels // heads, -1).unbind(1)
        else:
            q, k, v = qkv.reshape(n, heads, 3, channels // heads, -1).unbind(2)
        mixed = pointwise(f"{name}.proj_out", attend(q, k, v).reshape(n, channels, -1), channels)
        return h + mixed.reshape(n, channels, *size)

    widths = [int(m * c.base) for m in c.multipliers]
    h = w.conv("input_blocks.0.0", x, widths[0])
    skips, number = [h], 1
    for level, channels in enumerate(widths):
        for _ in range(c.blocks):
            h = residual(f"input_blocks.{number}.0", h, channels)
            if c.attention[level]:
                h = attention(f"input_blocks.{number}.1", h)
            skips.append(h)
            number += 1
        if level < len(widths) - 1:
            if c.resampling == "resnet":
                h = residual(f"input_blocks.{number}.0", h, channels, "down")
            elif c.resampling == "conv":
                h = w.conv(f"input_blocks.{number}.0.op", h, channels, stride=2)
            else:
                h = functional.avg_pool2d(h, 2)
            skips.append(h)
            number += 1
    h = residual("middle_block.0", h, widths[-1])
    h = residual("middle_block.2", attention("middle_block.1", h), widths[-1])
    number = 0
    for level in reversed(range(len(widths))):
        for block in range(c.blocks + 1):
            h = residual(f"output_blocks.{number}.0", torch.cat([h, skips.pop()], 1), widths[level])
            if c.attention[level]:
                h = attention(f"output_blocks.{number}.1", h, up=True)
            if level and block == c.blocks:
                name = f"output_blocks.{number}.{1 + c.attention[level]}"
                if c.resampling == "resnet":
                    h = residual(name, h, widths[level], "up")
                else:
                    h = resized(h, "up")
                    h = w.conv(f"{name}.conv", h, widths[level]) if c.resampling == "conv" else h
            number += 1
    return w.conv("out.2", functional.silu(w.norm("out.0", h, 1e-5)), c.channels * (1 + c.learn_sigma))


def resized(h: Tensor, how: str | None) -> Tensor:
    if how == "down":
        return functional.avg_pool2d(h, 2)
    return h.repeat_interleave(2, -1).repeat_interleave(2, -2) if how == "up" else h


@dataclass(frozen=True)
class DDPM:
    """The settings of a DDPM U-Net that a format test varies."""

    base: int = 32
    multipliers: tuple[int, ...] = (1, 2)
    attention: tuple[bool, ...] = (False, True)
    blocks: int = 1
    channels: int = 3
    convolved: bool = True


def ddpm(w: Weights, c: DDPM, x: Tensor, t: Tensor) -> Tensor:
    """The DDPM U-Net with pesser/pytorch_diffusion's tensor names."""
    angles = t[:, None].float() * torch.exp(-math.log(1e4) * torch.arange(c.base // 2) / (c.base // 2 - 1))
    emb = functional.silu(w.linear("temb.dense.0", torch.cat([angles.sin(), angles.cos()], 1), 4 * c.base))
    emb = w.linear("temb.dense.1", emb, 4 * c.base)

    def residual(name: str, h: Tensor, channels: int) -> Tensor:
        inner = w.conv(f"{name}.conv1", functional.silu(w.norm(f"{name}.norm1", h, 1e-6)), channels)
        inner = inner + w.linear(f"{name}.temb_proj", functional.silu(emb), channels)[:, :, None, None]
        inner = w.conv(f"{name}.conv2", functional.silu(w.norm(f"{name}.norm2", inner, 1e-6)), channels)
        return inner + (h if h.shape[1] == channels else w.conv(f"{name}.nin_shortcut", h, channels, kernel=1))

    def attention(name: str, h: Tensor) -> Tensor:
        channels, size = h.shape[1], h.shape[2:]
        normed = w.norm(f"{name}.norm", h, 1e-6)
        q, k, v = (w.conv(f"{name}.{part}", normed, channels, kernel=1).flatten(2) for part in "qkv")
        return h + w.conv(f"{name}.proj_out", attend(q, k, v).unflatten(2, size), channels, kernel=1)

    widths = [m * c.base for m in c.multipliers]
    h = w.conv("conv_in", x, c.base)
    skips = [h]
    for level, channels in enumerate(widths):
        for block in range(c.blocks):
            h = residual(f"down.{level}.block.{block}", h, channels)
            if c.attention[level]:
                h = attention(f"down.{level}.attn.{block}", h)
            skips.append(h)
        if level < len(widths) - 1:
            if c.convolved:
                h = w.conv(
                    f"down.{level}.downsample.conv", functional.pad(h, (0, 1, 0, 1)), channels, stride=2, padding=0
                )
            else:
                h = functional.avg_pool2d(h, 2)
            skips.append(h)
    h = residual("mid.block_2", attention("mid.attn_1", residual("mid.block_1", h, widths[-1])), widths[-1])
    for level in reversed(range(len(widths))):
        for block in range(c.blocks + 1):
            h = residual(f"up.{level}.block.{block}", torch.cat([h, skips.pop()], 1), widths[level])
            if c.attention[level]:
                h = attention(f"up.{level}.attn.{block}", h)
        if level:
            h = resized(h, "up")
            h = w.conv(f"up.{level}.upsample.conv", h, widths[level]) if c.convolved else h
    return w.conv("conv_out", functional.silu(w.norm("norm_out", h, 1e-6)), c.channels)


def random_state(network, config, seed: int = 0, **given) -> Weights:
    """A random state dict of the format ``network`` with ``config``."""
    torch.manual_seed(seed)
    weights = Weights()
    size = 2 ** len(config.multipliers)
    network(weights, config, torch.zeros(1, config.channels, size, size), torch.zeros(1), **given)
    return weights
