"""Where a photo is damaged: thin scratches and specks of dust, found by classical morphology."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import cos, pi, sin

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqir.errors import OptionError, ShapeError

LUMA = (0.299, 0.587, 0.114)
DIRECTIONS, SECTORS = 32, 8
Plane = NDArray[np.float32]
Found = NDArray[np.bool_]
Pixels = NDArray[np.int64]


@dataclass(frozen=True)
class DefectDetector:
    """Finds lines and specks that are brighter or darker than all that is around them.

    A scratch is a ridge: the mean along a segment of ``segment`` pixels, in the strongest of 32 directions, above the
    means along both parallel segments ``radius`` pixels aside. Ridges of similar direction must connect to a line of at
    least ``shortest`` pixels, no wider than ``bend`` times that, whose tone is among the brightest (darkest) of the
    photo, beyond its quantile ``extreme``: damage shows bare paper or dirt. Dust is a compact spot that the top-hat
    transform with a disc of ``radius`` pixels leaves. Both must stand out by ``contrast`` (units of 0..1) and by
    ``line_prominence`` or ``speck_prominence`` times the median response of the surroundings, so that texture is not
    damage; what touches them and is half as strong belongs to them (hysteresis). The result grows by ``margin`` pixels.
    Raises OptionError for values that are not positive.
    """

    radius: int = 3
    segment: int = 17
    shortest: int = 30
    bend: float = 0.1
    extreme: float = 0.93
    contrast: float = 0.12
    line_prominence: float = 2.0
    speck_prominence: float = 5.0
    margin: int = 1

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not value >= (0 if item.name == "margin" else 1e-6):
                raise OptionError(f"{item.name} is {value}; choose a number above zero")

    def observed(self, photo: Tensor) -> Tensor:
        """The mask (1, 1, H, W) of ``photo`` (1, C, H, W) in [0, 1]: 1 where it is whole, 0 where it is damaged.

        Raises ShapeError for another shape.
        """
        if photo.ndim != 4 or len(photo) != 1 or photo.shape[1] not in (1, 3):
            raise ShapeError(f"the photo has shape {tuple(photo.shape)}; give one of (1, 1 or 3, H, W)")
        image = photo[0].detach().cpu().float().numpy()
        luma: Plane = image[0] if len(image) == 1 else np.tensordot(np.array(LUMA, np.float32), image, 1)
        found = self._found(luma) | self._found(1 - luma)
        grown = _dilated(found, self.margin)
        return torch.from_numpy(~grown)[None, None].to(photo.dtype)

    def _found(self, luma: Plane) -> Found:
        """Bright defects of ``luma`` (H, W)."""
        import cv2

        border = 2 * self.segment
        bordered = cv2.copyMakeBorder(luma, border, border, border, border, cv2.BORDER_REFLECT_101)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * self.radius + 1, 2 * self.radius + 1))
        bright = cv2.morphologyEx(bordered, cv2.MORPH_TOPHAT, disc)
        texture = _local_median(bright + cv2.morphologyEx(bordered, cv2.MORPH_BLACKHAT, disc), 8 * self.radius + 1)
        lines = self._lines(bordered, bright, texture)
        others = np.where(_dilated(lines, 2), 0, bright)
        spots = self._strong(others, self.speck_prominence * texture)
        return (lines | _selected(spots, self._is_speck))[border:-border, border:-border]

    def _lines(self, luma: Plane, bright: Plane, texture: Plane) -> Found:
        """Scratches; each sector of directions on its own, so that lines that cross do not become one shape."""
        ridge, direction = self._ridges(luma)
        bar = float(np.quantile(luma, self.extreme))
        thin = bright > self.contrast / 2
        found = np.zeros(luma.shape, bool)
        for sector in range(SECTORS):
            away = (direction - sector * DIRECTIONS // SECTORS) % DIRECTIONS
            inside = np.minimum(away, DIRECTIONS - away) <= DIRECTIONS // SECTORS
            strong = self._strong(np.where(inside, ridge, 0), self.line_prominence * texture)
            found |= _selected(strong & thin, lambda rows, columns: self._is_line(rows, columns, luma, bar))
        return found | (_dilated(found, 1) & thin)

    def _ridges(self, luma: Plane) -> tuple[Plane, Pixels]:
        """How much brighter than both its sides a segment through each pixel is, in the direction where most; which."""
        import cv2

        strongest, best = np.zeros_like(luma), np.zeros(luma.shape, np.int64)
        for direction in range(DIRECTIONS):
            angle = pi * direction / DIRECTIONS
            mean = cv2.filter2D(luma, -1, _segment(self.segment, angle))
            shift = round(-self.radius * cos(angle)), round(self.radius * sin(angle))
            sides = np.maximum(np.roll(mean, shift, (0, 1)), np.roll(mean, (-shift[0], -shift[1]), (0, 1)))
            best = np.where(mean - sides > strongest, direction, best)
            strongest = np.maximum(strongest, mean - sides)
        return strongest, best

    def _strong(self, response: Plane, usual: Plane) -> Found:
        """Where ``response`` stands out, and what touches that and is half as strong."""
        from skimage.filters import apply_hysteresis_threshold

        found: Found = apply_hysteresis_threshold(response / np.maximum(self.contrast, usual), 0.5, 1.0)
        return found

    def _is_line(self, rows: Pixels, columns: Pixels, luma: Plane, bar: float) -> bool:
        length, width = _extent(rows, columns)
        straight = length >= self.shortest and width <= max(2 * self.radius, self.bend * length)
        return straight and float(np.median(luma[rows, columns])) >= bar

    def _is_speck(self, rows: Pixels, columns: Pixels) -> bool:
        length, width = _extent(rows, columns)
        filled = len(rows) / max(1.0, 0.785 * length * width)
        return len(rows) >= 3 and length <= 2 * self.radius and length <= 3 * width and filled > 0.6


def _segment(length: int, angle: float) -> Plane:
    """The mean along a straight segment, anti-aliased, as a filter (length, length)."""
    import cv2

    fine = 4 * length
    canvas = np.zeros((fine, fine), np.float32)
    middle, half = (fine - 1) / 2, fine / 2 - 4
    across, down = half * cos(angle), half * sin(angle)
    ends = [(round(middle + k * across), round(middle + k * down)) for k in (-1, 1)]
    cv2.line(canvas, ends[0], ends[1], 1, 4)
    kernel = canvas.reshape(length, 4, length, 4).mean((1, 3))
    return np.asarray(kernel / kernel.sum(), np.float32)


def _local_median(response: Plane, side: int) -> Plane:
    """The median over (side, side) pixels, to 1/255."""
    import cv2

    levels = (255 * response.clip(0, 1)).round().astype(np.uint8)
    return np.asarray(cv2.medianBlur(levels, side) / np.float32(255), np.float32)


def _selected(found: Found, wanted: Callable[[Pixels, Pixels], bool]) -> Found:
    """The connected parts of ``found`` that ``wanted(rows, columns)`` accepts."""
    from scipy.ndimage import find_objects, label

    labels, _ = label(found, np.ones((3, 3)))
    kept = np.zeros_like(found)
    for number, box in enumerate(find_objects(labels), 1):
        part = labels[box] == number
        rows, columns = np.nonzero(part)
        if wanted(rows + box[0].start, columns + box[1].start):
            kept[box] |= part
    return kept


def _extent(rows: Pixels, columns: Pixels) -> tuple[float, float]:
    """Length and width of a set of pixels along its principal axes."""
    points = np.stack([rows, columns]).astype(float)
    points -= points.mean(1, keepdims=True)
    axes = np.linalg.eigh(points @ points.T)[1]
    along = axes.T @ points
    width, length = np.ptp(along, axis=1) + 1
    return float(max(length, width)), float(min(length, width))


def _dilated(found: Found, radius: int) -> Found:
    import cv2

    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray(cv2.dilate(found.astype(np.uint8), disc)).astype(bool)
