"""Ageing a photo on purpose, so that the truth behind an old photo is known: fading, grain, scratches and dust."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqir.errors import OptionError
from deqir.fading import Fading
from deqir.noise import generator

FADED = Fading((0.62, 0.55, 0.45), (0.28, 0.24, 0.20))
"""A yellowed print: blacks are brown, whites cream."""


@dataclass(frozen=True)
class Aged:
    """``image`` (1, C, H, W) in [0, 1] as it is found, and ``mask`` (1, 1, H, W), 1 where it is not damaged."""

    image: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Ageing:
    """What happened to a photo: it faded, ``grain`` (standard deviation, units of 0..1) came over it, then damage.

    ``scratches`` thin lines and ``specks`` of dust, most of them bright, some dark; numbers, places and shades are
    drawn from ``seed``. Raises OptionError for negative numbers.
    """

    fading: Fading | None = FADED
    grain: float = 0.03
    scratches: int = 6
    specks: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.grain, self.scratches, self.specks) < 0:
            raise OptionError(
                f"grain is {self.grain}, scratches {self.scratches} and specks {self.specks}; choose zero or more"
            )

    def apply(self, photo: Tensor) -> Aged:
        """Age ``photo`` (1, C, H, W) in [0, 1]."""
        faded = photo if self.fading is None else self.fading.for_channels(photo.shape[1]).apply(photo)
        noise = torch.randn(photo.shape, generator=generator(self.seed, "observation"), dtype=photo.dtype)
        worn = (faded + self.grain * noise).clamp(0, 1)
        cover, shade = damage(photo.shape[2], photo.shape[3], self.scratches, self.specks, self.seed)
        cover, shade = cover.to(photo.dtype), shade.to(photo.dtype)
        return Aged(worn * (1 - cover) + shade * cover, (cover == 0).to(photo.dtype))


def damage(height: int, width: int, scratches: int, specks: int, seed: int) -> tuple[Tensor, Tensor]:
    """How much of each pixel is covered, and with which shade: two tensors (1, 1, height, width) in [0, 1]."""
    dice = np.random.default_rng(seed)
    cover = np.zeros((height, width))
    shade = np.zeros((height, width))
    strokes = [_scratch(dice, height, width) for _ in range(scratches)]
    strokes += [_speck(dice, height, width) for _ in range(specks)]
    for stroke, opacity in strokes:
        bright = dice.random() < 0.75
        value = dice.uniform(0.9, 1) if bright else dice.uniform(0, 0.08)
        stroke = np.where(stroke > 0.1, stroke, 0) * opacity
        shade = np.where(stroke > cover, value, shade)
        cover = np.maximum(cover, stroke)
    return _tensor(cover), _tensor(shade)


def _scratch(dice: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.float64], float]:
    """A slightly bent line, most of them near the vertical, as film and rollers leave them."""
    length = dice.uniform(0.3, 1.2) * max(height, width)
    angle = pi / 2 + dice.normal(0, 0.25) if dice.random() < 0.6 else dice.uniform(0, pi)
    bend = dice.normal(0, 0.08)
    start = dice.uniform(-0.1, 0.9) * height, dice.uniform(0, 1) * width
    along = np.linspace(0, 1, 40)
    rows = start[0] + length * (along * sin(angle) + bend * along * (1 - along) * cos(angle))
    columns = start[1] + length * (along * cos(angle) - bend * along * (1 - along) * sin(angle))
    return _line(rows, columns, dice.uniform(0.8, 2.2), height, width), float(dice.uniform(0.7, 1))


def _line(
    rows: NDArray[np.float64], columns: NDArray[np.float64], thickness: float, height: int, width: int
) -> NDArray[np.float64]:
    """A polyline, anti-aliased by drawing at four times the size."""
    import cv2

    canvas = np.zeros((4 * height, 4 * width), np.uint8)
    points = np.stack([4 * columns, 4 * rows], 1).round().astype(np.int32)
    cv2.polylines(canvas, [points], False, 255, max(1, round(4 * thickness)))
    small: NDArray[np.float64] = canvas.reshape(height, 4, width, 4).mean((1, 3)) / 255
    return small


def _speck(dice: np.random.Generator, height: int, width: int) -> tuple[NDArray[np.float64], float]:
    """A round or oval spot with a soft rim of one pixel."""
    row, column, angle = dice.uniform(0, height), dice.uniform(0, width), dice.uniform(0, pi)
    long = dice.uniform(0.8, 2.5)
    short = long * dice.uniform(0.5, 1)
    y, x = np.mgrid[:height, :width] + 0.0
    y, x = y - row, x - column
    u, v = x * cos(angle) + y * sin(angle), y * cos(angle) - x * sin(angle)
    radius = np.hypot(u / long, v / short)
    return np.clip((1 - radius) * short + 0.5, 0, 1), float(dice.uniform(0.85, 1))


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values)[None, None]
