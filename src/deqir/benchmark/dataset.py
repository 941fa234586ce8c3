"""The images of a benchmark: which files, in which order, and how they become truths of one size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from deqir.errors import ImageReadError, OptionError
from deqir.images import find_images, read_image

Fit = Literal["keep", "resize", "crop"]


@dataclass(frozen=True)
class Preparation:
    """How an image becomes a truth.

    ``fit`` keep: as it is. ``resize``: to ``size`` x ``size`` pixels whatever its proportions, as DDNM's and DDRM's
    code do with CelebA-HQ. ``crop``: the central square, then resized, as they do with ImageNet. Resizing is Pillow's
    bilinear filter on 8 bits, which is what torchvision's ``Resize`` does with a file; an image that has the size
    already is not touched. Raises OptionError for an unknown fit or a size below 1.
    """

    fit: Fit = "keep"
    size: int = 256

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):
            raise OptionError(f"fit is {self.fit!r}; choose one of {', '.join(get_args(Fit))}")
        if self.size < 1:
            raise OptionError(f"size is {self.size}; choose at least 1 pixel")

    def apply(self, image: Tensor) -> Tensor:
        """``image`` (C, H, W) in [0, 1], fitted."""
        if self.fit == "keep":
            return image
        if self.fit == "crop":
            image = _central_square(image)
        return image if tuple(image.shape[1:]) == (self.size, self.size) else _resized(image, self.size)


@dataclass(frozen=True)
class Dataset:
    """Image files below ``folder``, named by their path inside it.

    ``files``: those meant, in their order (None: all of the folder and its subfolders, sorted). Of these every
    ``every``-th from the first on is taken, ``limit`` of them at most. Raises OptionError for a name that leads out
    of the folder, and for numbers below 1.
    """

    folder: Path
    files: tuple[str, ...] | None = None
    every: int = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise OptionError(f"every is {self.every}; choose 1 for all images, 10 for every tenth")
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"limit is {self.limit}; choose at least 1 image")
        for name in self.files or ():
            if any(path.anchor or ".." in path.parts for path in (PurePosixPath(name), PureWindowsPath(name))):
                raise OptionError(f"the list names {name!r}; give names of files inside the data folder")

    def names(self) -> list[str]:
        """The names of the images. Raises ImageReadError where there is none."""
        if not self.folder.is_dir():
            raise ImageReadError(f"the data {self.folder} is not a folder; name a folder of images")
        names = self.files
        if names is None:
            found = sorted(find_images(self.folder, recursive=True))
            names = tuple(path.relative_to(self.folder).as_posix() for path in found)
        chosen = list(names)[:: self.every][: self.limit]
        if not chosen:
            raise ImageReadError(f"the list of images for {self.folder} is empty; name at least one file in it")
        return chosen

    def truth(self, name: str, preparation: Preparation) -> Tensor:
        """The image called ``name`` as a truth, (1, C, H, W) in [0, 1]."""
        return preparation.apply(read_image(self.folder / name))[None]


def read_list(path: Path) -> tuple[str, ...]:
    """The file names in a text file, one a line; what follows a name (a class, say) is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"the list {path} cannot be read ({error}); name a text file, one image a line") from None
    return tuple(line.split()[0] for line in lines if line.strip())


def _central_square(image: Tensor) -> Tensor:
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = round((height - side) / 2), round((width - side) / 2)
    return image[:, top : top + side, left : left + side]


def _resized(image: Tensor, size: int) -> Tensor:
    from PIL import Image

    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    resized = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
    planes = resized[..., None] if resized.ndim == 2 else resized
    return torch.from_numpy(planes.copy()).permute(2, 0, 1).float() / 255
