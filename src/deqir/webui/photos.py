"""From an upload to the file that is restored: read, reduced, with the mask that was painted on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from deqir.errors import ImageReadError, OptionError
from deqir.images import read_image, write_image
from deqir.webui.settings import Limits, Settings


def read_photo(path: str | None, limits: Limits) -> Tensor:
    """The upload ``path`` as (C, H, W) in [0, 1]. Raises OptionError without one, ImageReadError for a bad one."""
    if not path:
        raise OptionError("there is no photo yet; upload one, or take the bundled photo")
    file = Path(path)
    try:
        size = file.stat().st_size
        if size > limits.file_bytes:
            raise OptionError(
                f"{file.name} has {size / 1e6:.0f} MB, more than the {limits.file_bytes / 1e6:g} MB allowed here; "
                "make it smaller"
            )
        return read_image(file, limits.photo_pixels)
    except FileNotFoundError:
        raise ImageReadError("the photo is no longer on the server; upload it again") from None
    except ImageReadError as error:  # the visitor knows the file's name, not the server's folders
        raise ImageReadError(str(error).replace(str(file), file.name)) from None


def reduced(photo: Tensor, side: int) -> Tensor:
    """``photo`` (C, H, W) with its longer side reduced to ``side`` pixels, every pixel the mean of an area."""
    height, width = photo.shape[1:]
    if max(height, width) <= side:
        return photo
    factor = side / max(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return interpolate(photo[None], size, mode="area")[0]


def read_mask_file(path: str, size: tuple[int, int], limits: Limits) -> Tensor:
    """An uploaded mask as (1, H, W) of 0 and 1, brought to ``size`` (H, W); white is kept."""
    mask = read_photo(path, limits).mean(0)[None, None]
    return (interpolate(mask, size, mode="nearest")[0] > 0.5).float()


def painted_mask(editor: Any, size: tuple[int, int]) -> Tensor:
    """The mask (1, H, W) of ``size`` (H, W), 1 = keep, from the editor's layers: what was painted on is filled."""
    layers = [] if not isinstance(editor, dict) else [np.asarray(layer) for layer in editor.get("layers") or []]
    covers = [torch.from_numpy(layer[..., 3].copy()).float() for layer in layers if layer.shape[2:] == (4,)]
    painted = [interpolate(cover[None, None], size, mode="area")[0, 0] > 0 for cover in covers]
    return 1 - torch.stack(painted).any(0).float()[None] if painted else torch.ones(1, *size)


def stage(photo: Tensor, settings: Settings, mask: Tensor | None, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write what is restored into ``folder``; returns the file and the task's settings, which then name the mask."""
    file, task = folder / "photo.png", dict(settings.task)
    write_image(file, photo, bits=16)
    if settings.has_brush:
        if mask is None or bool(mask.all()):
            raise OptionError("nothing is painted on the photo; paint over what is to be filled, or take another mask")
        if not mask.any():
            raise OptionError("the whole photo is painted over; leave something to restore it from")
        write_image(folder / "mask.png", mask)
        task["mask"] = str(folder / "mask.png")
    return file, task
