"""Masks as image files."""

from __future__ import annotations

from torch import Tensor

from deqir.errors import OptionError, ShapeError
from deqir.images.files import StrPath
from deqir.images.reading import read_image


def read_mask(path: StrPath, size: tuple[int, int] | None = None) -> Tensor:
    """Read a mask of ``size`` (H, W; None: any) as (1, 1, H, W) of 0 and 1; white (above one half) is kept."""
    image = read_image(path)
    height, width = image.shape[1:]
    if size is not None and (height, width) != tuple(size):
        raise ShapeError(
            f"mask {path} is {width} x {height} pixels but the image is {size[1]} x {size[0]}; make them the same size"
        )
    mask = (image.mean(0) > 0.5).float()[None, None]
    if not mask.any():
        raise OptionError(f"mask {path} is black everywhere, so nothing is observed; paint what is to be kept white")
    return mask
