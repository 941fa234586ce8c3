"""Sheets of labelled pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MARGIN, LINE, LINES = 8, 15, 3


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture (1, C, H, W) in [0, 1], with a title above and a note of up to two lines under it."""

    title: str
    image: Tensor
    note: str = ""


def draw_sheet(rows: list[list[Picture]], zoom: int = 2) -> Tensor:
    """All ``rows`` on one white sheet (3, H, W) in [0, 1]; every picture enlarged ``zoom`` times by its pixels."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    height, width = rows[0][0].image.shape[-2:]
    cell = (width * zoom + MARGIN, height * zoom + MARGIN + LINE * LINES)
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * cell[0] + MARGIN, len(rows) * cell[1] + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            left, top = MARGIN + across * cell[0], MARGIN + down * cell[1]
            draw.text((left, top), picture.title, fill="black", font=font)
            sheet.paste(_enlarged(picture.image, zoom), (left, top + LINE))
            below = top + LINE + height * zoom + 1
            for number, text in enumerate(picture.note.splitlines()[:2]):
                draw.text((left, below + number * LINE), text, fill="black", font=font)
    return torch.from_numpy(np.asarray(sheet).copy()).permute(2, 0, 1).float() / 255


def _enlarged(image: Tensor, zoom: int):  # type: ignore[no-untyped-def]
    from PIL import Image

    pixels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8)
    colour = pixels.expand(3, *pixels.shape[1:]).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(colour).resize((colour.shape[1] * zoom, colour.shape[0] * zoom), Image.Resampling.NEAREST)
