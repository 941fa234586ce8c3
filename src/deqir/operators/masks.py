"""Inpainting masks: float32 (1, 1, height, width) tensors, 1 where a pixel is observed and 0 where it is hidden."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from deqir.errors import OptionError
from deqir.operators.checks import require_integer

_TEXT = "light falls upon the quiet water and every broken line comes slowly back into one clear picture"


def random_mask(height: int, width: int, fraction_hidden: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide ``round(fraction_hidden * height * width)`` pixels drawn at random, without a ``generator`` torch's own.

    Raises OptionError unless 0 <= fraction_hidden < 1 and at least one pixel stays observed.
    """
    _require_sides(height, width)
    hidden = round(fraction_hidden * height * width) if 0 <= fraction_hidden < 1 else height * width
    if hidden == height * width:
        raise OptionError(
            f"fraction_hidden is {fraction_hidden}, which leaves no pixel of {height}x{width} observed or is no "
            "fraction; give a number from 0 up to, not including, 1"
        )
    device = "cpu" if generator is None else generator.device
    order = torch.randperm(height * width, generator=generator, device=device)
    return (order >= hidden).to(torch.float32).cpu().reshape(1, 1, height, width)


def box_mask(height: int, width: int, box: tuple[int, int, int, int] | None = None) -> Tensor:
    """Hide the rectangle ``box`` (top, left, height, width); without one, the central half of each side.

    Raises OptionError where the box is empty, reaches outside the image or covers all of it.
    """
    _require_sides(height, width)
    half_height, half_width = max(1, height // 2), max(1, width // 2)
    default = ((height - half_height) // 2, (width - half_width) // 2, half_height, half_width)
    top, left, box_height, box_width = default if box is None else box
    fits = min(top, left) >= 0 and min(box_height, box_width) >= 1
    if not fits or top + box_height > height or left + box_width > width or (box_height, box_width) == (height, width):
        raise OptionError(
            f"the box {(top, left, box_height, box_width)} does not fit in {height}x{width} with pixels around it; "
            "give (top, left, height, width) inside the image"
        )
    mask = torch.ones(1, 1, height, width, dtype=torch.float32, device="cpu")
    mask[..., top : top + box_height, left : left + box_width] = 0
    return mask


def text_mask(height: int, width: int, seed: int = 0, font_size: int | None = None) -> Tensor:
    """Hide the strokes of lines of text written over the whole image in Pillow's built-in font.

    ``seed`` decides the words; ``font_size`` in pixels is a twelfth of the shorter side by default, at least 8.
    Raises OptionError for sides or a font size that are not positive integers.
    """
    from PIL import Image, ImageDraw, ImageFont

    _require_sides(height, width)
    size = max(8, min(height, width) // 12) if font_size is None else font_size
    require_integer("font_size", size)
    words, dice, font = _TEXT.split(), random.Random(seed), ImageFont.load_default(size)
    page = Image.new("1", (width, height), 0)
    pen = ImageDraw.Draw(page)
    for top in range(0, height, max(1, round(1.4 * size))):
        line = " ".join(dice.choice(words) for _ in range(2 + width // size))
        pen.text((-dice.randrange(2 * size), top), line, fill=1, font=font)
    hidden = torch.from_numpy(np.array(page, dtype=np.float32))
    return (1 - hidden).reshape(1, 1, height, width)


def _require_sides(height: int, width: int) -> None:
    require_integer("height", height)
    require_integer("width", width)
