"""Files: finding, opening and replacing them, with one clear sentence for whatever is wrong."""

from __future__ import annotations

import os
import secrets
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from deqir.errors import DeqirError, ImageReadError, OptionError, OutputError

StrPath = str | os.PathLike[str]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp")
PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "DIB")
MAX_PIXELS, PIXEL_LIMIT = 200_000_000, "DEQIR_MAX_PIXELS"
CONVERT = "convert it to an 8- or 16-bit PNG"
_PILLOW_LOCK = threading.Lock()


def atomic_write(path: StrPath, data: bytes) -> None:
    """Write ``data`` to a hidden ``.part`` file of the same folder and rename it, so that no half file is ever seen."""
    with staged(path, data, f".{secrets.token_hex(8)}.part"):
        pass


@contextmanager
def staged(path: StrPath, data: bytes, partial_name: str) -> Iterator[None]:
    """Write ``data`` to ``partial_name`` in the folder of ``path``; rename it to ``path`` once the body has ended.

    Where the body raises, ``path`` stays as it was. Raises OutputError where the disk refuses.
    """
    path = Path(path)
    partial = path.parent / partial_name
    try:
        if not path.parent.is_dir():
            raise OutputError(f"{path} cannot be written because its folder does not exist; create {path.parent} first")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} is not a regular file and cannot be replaced; choose another name")
        partial.write_bytes(data)
        yield
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(
            f"{path} could not be written ({error.strerror or error}); free space, or choose a folder you may write to"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def find_images(
    paths: StrPath | Iterable[StrPath], recursive: bool = False, suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> list[Path]:
    """Expand folders into their files with one of ``suffixes``, sorted; files are kept as given.

    Hidden and ``.part`` files are skipped. Raises ImageReadError for a file that is none, a folder without any, and a
    folder that cannot be read.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[Path] = []
    for path in map(Path, given):
        if not path.is_dir():
            found.append(existing_file(path))
            continue
        inside = sorted(_images_inside(path, recursive, suffixes))
        if not inside:
            hint = "" if recursive else ", or look into its subfolders with recursive"
            raise ImageReadError(f"{path} holds no image ({', '.join(suffixes)}); name another folder{hint}")
        found += inside
    return found


def existing_file(path: StrPath) -> Path:
    """``path`` as a Path, once it is known to be a file with something in it."""
    path = Path(path)
    try:
        if path.is_dir():
            raise ImageReadError(f"{path} is a folder; name a file in it")
        if not path.exists():
            raise ImageReadError(f"{path} does not exist; check the spelling of the path")
        if not path.is_file():
            raise ImageReadError(f"{path} is not a regular file; name an image file")
        if path.stat().st_size == 0:
            raise ImageReadError(f"{path} is empty (zero bytes); copy or download it again")
    except (OSError, ValueError) as error:
        raise ImageReadError(f"{str(path)!r} cannot be opened ({one_line(error)}); check the path") from error
    return path


@contextmanager
def opened(path: StrPath) -> Iterator[BinaryIO]:
    """Open a file with Pillow's own pixel limit and warnings off, and turn whatever a decoder raises into one sentence.

    The limit and the warnings belong to the whole process, hence the lock.
    """
    path = existing_file(path)
    with _PILLOW_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with path.open("rb") as file:
                yield file
        except DeqirError:
            raise
        except PermissionError as error:
            raise forbidden(path) from error
        except Image.DecompressionBombError as error:
            raise ImageReadError(
                f"{path} has a frame of more pixels than are allowed; make it smaller, or raise {PIXEL_LIMIT}"
            ) from error
        except UnidentifiedImageError as error:
            raise ImageReadError(
                f"{path} is not a readable PNG, JPEG, WebP, TIFF, GIF or BMP image; check the file, or {CONVERT}"
            ) from error
        except MemoryError as error:
            raise ImageReadError(f"{path} does not fit into memory; make the image smaller") from error
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            raise ImageReadError(
                f"{path} is truncated or damaged ({one_line(error)}); copy or download it again"
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def forbidden(path: Path) -> ImageReadError:
    """What to raise for a file that this user may not read."""
    return ImageReadError(f"{path} may not be read (permission denied); change its permissions")


def pixel_limit() -> int:
    """The pixels that an image may have where nothing else is asked for: ``DEQIR_MAX_PIXELS``, else ``MAX_PIXELS``.

    Raises OptionError where the variable is no positive whole number.
    """
    text = os.environ.get(PIXEL_LIMIT, str(MAX_PIXELS))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) > 0):
        raise OptionError(f"the environment variable {PIXEL_LIMIT} is {text!r}; give a whole number above zero")
    return int(text)


def limit_frames(max_pixels: int) -> None:
    """Let Pillow refuse frames of more pixels, which a GIF can have behind a small first one; inside ``opened``."""
    Image.MAX_IMAGE_PIXELS = max(1, max_pixels // 2)  # it refuses what is beyond twice that


def _images_inside(folder: Path, recursive: bool, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(suffixes):
                yield Path(parent, name)


def _unreadable(error: OSError) -> None:
    """What ``os.walk`` passes over in silence."""
    raise ImageReadError(
        f"folder {error.filename} cannot be read ({error.strerror}); change its permissions, or leave it out"
    ) from error


def one_line(error: object) -> str:
    """What ``error`` says, or a text, on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__
