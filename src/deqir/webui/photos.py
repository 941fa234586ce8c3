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
from deqir.webui.settings import BRUSH_COLOUR, Limits, Settings


def read_photo(path: str | None, limits: Limits) -> Tensor:
    """The upload ``path`` as (C, H, W) in [0, 1]. Raises OptionError without one, ImageReadError for a bad one."""
    if not path:
        raise OptionError("There is no photo yet; upload one, or take the bundled photo")
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
        raise ImageReadError("The photo is no longer on the server; upload it again") from None
    except ImageReadError as error:  # the visitor knows the file's name, not the server's folders
        raise ImageReadError(str(error).replace(str(file), file.name)) from None


def stem_of(path: str | None) -> str:
    """The name of an upload without its ending, from which the files to download get theirs."""
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in Path(path or "").stem)
    return stem[:80].strip("-") or "photo"


def reduced(photo: Tensor, side: int) -> Tensor:
    """``photo`` (C, H, W) with its longer side reduced to ``side`` pixels, every pixel the mean of an area."""
    height, width = photo.shape[1:]
    if max(height, width) <= side:
        return photo
    factor = side / max(height, width)
    return resized(photo, (max(1, round(height * factor)), max(1, round(width * factor))))


def resized(photo: Tensor, size: tuple[int, int]) -> Tensor:
    """``photo`` (C, H, W) in ``size`` (H, W): reduced by the mean of areas, enlarged bilinearly."""
    if size[0] > photo.shape[1] or size[1] > photo.shape[2]:
        return interpolate(photo[None], size, mode="bilinear", align_corners=False)[0]
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


def pixels(image: Tensor) -> Any:
    """(C, H, W) in [0, 1] as (H, W, 3) uint8."""
    return (image * 255).round().byte().permute(1, 2, 0).expand(-1, -1, 3).numpy()


def covered(photo: Tensor, mask: Tensor) -> dict[str, Any]:
    """What an editor shows of ``photo`` (C, H, W) where ``mask`` (1, H, W) is painted over where it is 0."""
    background, hidden = pixels(photo), (mask[0] == 0).numpy()
    layer = np.zeros((*hidden.shape, 4), np.uint8)
    layer[hidden] = [*(round(255 * part) for part in BRUSH_COLOUR), 255]
    composite = np.where(hidden[..., None], layer[..., :3], background)
    return {"background": background, "layers": [layer], "composite": composite}


def stage(photo: Tensor, settings: Settings, mask: Tensor | None, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write what is restored into ``folder``; returns the file and the task's settings, which then name the mask.

    An old photo may be whole, inpainting needs something to fill.
    """
    file, task = folder / "photo.png", dict(settings.task)
    write_image(file, photo, bits=16)
    if settings.has_brush:
        mask = torch.ones(1, *photo.shape[1:]) if mask is None else mask
        if task["name"] == "inpaint" and bool(mask.all()):
            raise OptionError("Nothing is painted on the photo; paint over what is to be filled, or take another mask")
        if not mask.any():
            raise OptionError("The whole photo is painted over; leave something to restore it from")
        write_image(folder / "mask.png", mask)
        task["mask"] = str(folder / "mask.png")
    return file, task
