"""Maps laid over pictures: strength as colour, the picture staying visible beneath."""

from __future__ import annotations

import torch
from torch import Tensor

from deqir.errors import ShapeError

# From transparent over orange to bright yellow: ordered in lightness, so that colour-blind eyes read the same order.
_STOPS = ((0.35, 0.05, 0.35), (0.80, 0.20, 0.30), (0.98, 0.55, 0.15), (1.00, 0.95, 0.40))
QUANTILE = 0.995
"""The share of values below the brightest colour; single extremes would leave the rest of a map dark."""


def heat(values: Tensor, largest: float | None = None) -> Tensor:
    """A map (H, W) of values from 0 to ``largest`` (None: nearly its largest) as colours (3, H, W) in [0, 1]."""
    level = strength(values, largest) * (len(_STOPS) - 1)
    below = level.floor().clamp(max=len(_STOPS) - 2).long()
    stops = torch.tensor(_STOPS, dtype=values.dtype, device=values.device)
    colours = torch.lerp(stops[below], stops[below + 1], (level - below)[..., None])
    return colours.permute(2, 0, 1)


def strength(values: Tensor, largest: float | None = None) -> Tensor:
    """``values`` scaled to [0, 1]."""
    top = float(values.flatten().quantile(QUANTILE)) if largest is None else largest
    return (values / top).clamp(0, 1) if top > 0 else torch.zeros_like(values)


def overlay(image: Tensor, values: Tensor, largest: float | None = None) -> Tensor:
    """A picture (C, H, W) in [0, 1], greyed and dimmed, with the map ``values`` (H, W) laid over it, (3, H, W).

    Raises ShapeError where their sizes differ.
    """
    if values.shape != image.shape[-2:]:
        raise ShapeError(f"the map has shape {tuple(values.shape)} but the picture {tuple(image.shape[-2:])}")
    grey = (0.15 + 0.6 * image.clamp(0, 1).mean(0)).expand(3, *values.shape)
    opacity = strength(values, largest).sqrt() * 0.85
    return torch.lerp(grey, heat(values, largest), opacity[None])


def outlined(image: Tensor, mask: Tensor, colour: tuple[float, float, float] = (0.2, 1.0, 1.0)) -> Tensor:
    """``image`` (3, H, W) with the border of ``mask`` (H, W) of 0 and 1 drawn one pixel wide."""
    padded = torch.nn.functional.pad(mask[None, None].float(), (1, 1, 1, 1))
    inner = -torch.nn.functional.max_pool2d(-padded, 3, stride=1)[0, 0]
    border = (mask > 0) & (inner == 0)
    return torch.where(border, torch.tensor(colour).view(3, 1, 1).to(image), image)
