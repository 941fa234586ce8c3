"""Reading and writing image files, masks and the metadata kept beside the pixels."""

from __future__ import annotations

import json
import os
import secrets
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from deqir.errors import DeqirError, ImageReadError, NonFiniteError, OptionError, OutputError, ShapeError

StrPath = str | os.PathLike[str]
Pixels = NDArray[Any]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
DEEP_SUFFIXES = (".png", ".tif", ".tiff")
MAX_PIXELS = 200_000_000
METADATA_KEY = "deqir"

_PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB")
_GREY_MODES = ("1", "L", "LA", "La")
_ORIENTATION = 274
_PNG_HEADER_END = 33  # the signature, then the IHDR chunk
_CONVERT = "convert it to an 8- or 16-bit PNG"
_PILLOW_LOCK = threading.Lock()


def read_image(path: StrPath, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a PNG, JPEG, WebP, TIFF or BMP file as float32 (C, H, W) in [0, 1], C = 1 for grey and 3 for colour.

    The EXIF orientation is applied, palettes and CMYK become RGB, 16-bit grey and RGB keep their 16 bits, alpha is
    ignored, and of several frames or pages the first is read. The header's size is held against ``max_pixels`` before
    anything is decoded.
    """
    with _open_for_reading(path) as file:
        pixels = torch.from_numpy(_decode(file, str(path), max_pixels))
    return (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)).contiguous()


def write_image(path: StrPath, image: Tensor, bits: int = 8, metadata: dict[str, Any] | None = None) -> None:
    """Write a (C, H, W) image, C = 1 or 3, in the format that the suffix of ``path`` names.

    Values are clipped to [0, 1] and rounded to 8 or, for PNG and TIFF, 16 bits. WebP is lossless (and always colour),
    JPEG has quality 95. ``metadata`` is kept as JSON in a text chunk of a PNG; other formats cannot carry it and
    leave it out. The file appears whole or not at all.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        raise OptionError(f"{path} has no suffix of an image that can be written; use {', '.join(WRITABLE_SUFFIXES)}")
    if bits not in (8, 16):
        raise OptionError(f"bits is {bits}; choose 8 or 16")
    if bits == 16 and suffix not in DEEP_SUFFIXES:
        raise OptionError(f"{path} cannot hold 16 bits in its format; choose .png or .tif, or bits=8")
    encoded_metadata = metadata_to_json(metadata) if metadata is not None else None
    pixels = _quantize(image, bits)
    try:
        data = _encode(pixels, suffix)
    except Exception as error:  # encoders raise nearly anything on a size beyond their format
        raise OutputError(
            f"{path} cannot be encoded ({_line(error)}); choose .png or .tif, or a smaller image"
        ) from error
    if encoded_metadata is not None and suffix == ".png":
        data = _with_text_chunk(data, METADATA_KEY, encoded_metadata)
    atomic_write(path, data)


def atomic_write(path: StrPath, data: bytes) -> None:
    """Write ``data`` to a hidden ``.part`` file of the same folder and rename it, so that no half file is ever seen."""
    path = Path(path)
    partial = path.parent / f".{secrets.token_hex(8)}.part"
    try:
        if not path.parent.is_dir():
            raise OutputError(f"{path} cannot be written because its folder does not exist; create {path.parent} first")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} is not a regular file and cannot be replaced; choose another name")
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(
            f"{path} could not be written ({error.strerror or error}); free space, or choose a folder you may write to"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_metadata(path: StrPath) -> dict[str, Any] | None:
    """The metadata that deqir kept in a .png or .safetensors file, or None where there is none."""
    if Path(path).suffix.lower() == ".safetensors":
        text = read_safetensors_header(path).get(METADATA_KEY)
    else:
        with _open_for_reading(path) as file, Image.open(file, formats=_PILLOW_FORMATS) as image:
            text = image.info.get(METADATA_KEY)
    return None if text is None else metadata_from_json(text, path)


def find_images(paths: StrPath | Iterable[StrPath], recursive: bool = False) -> list[Path]:
    """Expand folders into their images, sorted; files are kept as given; hidden and ``.part`` files are skipped."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    found: list[Path] = []
    for path in map(Path, given):
        if not path.is_dir():
            found.append(existing_file(path))
            continue
        inside = sorted(_images_inside(path, recursive))
        if not inside:
            hint = "" if recursive else ", or look into its subfolders with recursive"
            raise ImageReadError(f"{path} holds no image ({', '.join(IMAGE_SUFFIXES)}); name another folder{hint}")
        found += inside
    return found


def read_mask(path: StrPath, size: tuple[int, int]) -> Tensor:
    """Read a mask of ``size`` (H, W) as (1, 1, H, W) of 0 and 1; white (above one half) is observed and kept."""
    image = read_image(path)
    height, width = image.shape[1:]
    if (height, width) != tuple(size):
        raise ShapeError(
            f"mask {path} is {width} x {height} pixels but the image is {size[1]} x {size[0]}; make them the same size"
        )
    mask = (image.mean(0) > 0.5).float()[None, None]
    if not mask.any():
        raise OptionError(f"mask {path} is black everywhere, so nothing is observed; paint what is to be kept white")
    return mask


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
        raise ImageReadError(f"{str(path)!r} cannot be opened ({_line(error)}); check the path") from error
    return path


def metadata_to_json(metadata: dict[str, Any]) -> str:
    """One line of ASCII JSON."""
    try:
        return json.dumps(metadata)
    except (TypeError, ValueError) as error:
        raise OptionError(f"metadata cannot be stored as JSON ({_line(error)}); use plain values only") from error


def metadata_from_json(text: str, path: StrPath) -> dict[str, Any]:
    """The dict that ``metadata_to_json`` wrote."""
    try:
        metadata = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ImageReadError(f"{path} holds metadata that is not JSON ({_line(error)}); write it again") from error
    if not isinstance(metadata, dict):
        raise ImageReadError(f"{path} holds metadata that is not a JSON object; write it again")
    return metadata


def read_safetensors_header(path: StrPath) -> dict[str, str]:
    """The metadata of a .safetensors file, without its tensors."""
    from safetensors import SafetensorError, safe_open

    path = existing_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise ImageReadError(f"{path} is not a readable safetensors file ({_line(error)}); write it again") from error


@contextmanager
def _open_for_reading(path: StrPath) -> Iterator[BinaryIO]:
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
        except UnidentifiedImageError as error:
            raise ImageReadError(
                f"{path} is not a readable PNG, JPEG, WebP, TIFF or BMP image; check the file, or {_CONVERT}"
            ) from error
        except MemoryError as error:
            raise ImageReadError(f"{path} does not fit into memory; make the image smaller") from error
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            raise ImageReadError(
                f"{path} is truncated or damaged ({_line(error)}); copy or download it again"
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decode(file: BinaryIO, name: str, max_pixels: int) -> Pixels:
    """The pixels, float32 (H, W) or (H, W, 3) in [0, 1], upright."""
    tags = _tiff_tags(file)
    if tags is not None:
        _check_size(int(tags[256]), int(tags[257]), name, max_pixels)
        if _needs_cv2(tags, name):
            pixels = _decode_with_cv2(_without_tiff_orientation(file.read()), name)
            return _upright(pixels, int(tags.get(_ORIENTATION, 1)))
    with Image.open(file, formats=_PILLOW_FORMATS) as image:
        _check_size(image.width, image.height, name, max_pixels)
        image.load()
        orientation = int(image.getexif().get(_ORIENTATION, 1))  # 1 for a TIFF, which Pillow has turned by now
        bits, colour_type = _png_depth(file) if image.format == "PNG" else (8, 0)
        if bits == 16 and colour_type != 0:
            pixels = _decode_with_cv2(file.read(), name)
            pixels = pixels[..., 0] if colour_type == 4 else pixels  # grey with alpha
        else:
            pixels = _decode_with_pillow(image, tags, name)
        return _upright(pixels, orientation)


def _png_depth(file: BinaryIO) -> tuple[int, int]:
    """Bits a channel and colour type (0 grey, 4 grey with alpha); leaves the file at its start."""
    file.seek(0)
    header = file.read(_PNG_HEADER_END)
    file.seek(0)
    return header[24], header[25]


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageReadError(f"{name} has no pixels ({width} x {height}); use another image")
    if width * height > max_pixels:
        raise ImageReadError(
            f"{name} says it has {width} x {height} pixels, more than the {max_pixels} allowed; "
            "make it smaller, or raise max_pixels if you trust the file"
        )


def _decode_with_pillow(image: Image.Image, tags: dict[int, Any] | None, name: str) -> Pixels:
    if image.mode.startswith("I;16") or (image.mode == "I" and tags is None):
        peak = 2 ** int(tags[258][0]) - 1 if tags else 65535  # a TIFF may hold 12 bits
        return _grey_polarity(np.asarray(image).astype(np.float32) / peak, tags)
    if image.mode == "F":
        return _grey_polarity(_checked_floats(np.asarray(image), name), tags)
    if image.mode == "I":
        raise ImageReadError(f"{name} holds signed or 32-bit integers, whose white is unknown; {_CONVERT}")
    converted = image.convert("L" if image.mode in _GREY_MODES else "RGB")
    return np.asarray(converted).astype(np.float32) / 255


def _decode_with_cv2(data: bytes, name: str) -> Pixels:
    """Decode 16-bit or float colour, which Pillow would cut to 8 bits or refuse; alpha is dropped."""
    import cv2

    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if decoded is None:
        raise ImageReadError(f"{name} is truncated, damaged or of an unusual kind; copy it again, or {_CONVERT}")
    pixels: Pixels = decoded if decoded.ndim == 2 else decoded[..., [2, 1, 0]]
    return pixels.astype(np.float32) / 65535 if pixels.dtype == np.uint16 else _checked_floats(pixels, name)


def _checked_floats(pixels: Pixels, name: str) -> Pixels:
    if not np.isfinite(pixels).all():
        raise ImageReadError(f"{name} holds NaN or infinite values; repair them before reading")
    if pixels.min() < 0 or pixels.max() > 1:
        raise ImageReadError(
            f"{name} holds floats from {pixels.min():g} to {pixels.max():g} instead of within 0 to 1; rescale it first"
        )
    return pixels.astype(np.float32)


def _grey_polarity(pixels: Pixels, tags: dict[int, Any] | None) -> Pixels:
    """Pillow leaves a deep TIFF whose zero is white as it is."""
    return 1 - pixels if tags and tags.get(262) == 0 else pixels


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation, 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _tiff_tags(file: BinaryIO) -> dict[int, Any] | None:
    """The tags of a TIFF's first page, or None for a file of another kind; leaves the file at its start."""
    header = file.read(8)
    if header[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        file.seek(0)
        return None
    if b"+" in header[:4]:
        header += file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    file.seek(directory.next)
    directory.load(file)
    file.seek(0)
    return dict(directory)


def _needs_cv2(tags: dict[int, Any], name: str) -> bool:
    """Whether a TIFF is one that Pillow reads with loss or not at all; one that nothing here reads raises."""
    bits, samples = max(tags.get(258, (1,))), tags.get(277, 1)
    is_float, photometric = tags.get(339, (1,))[0] == 3, tags.get(262)
    if bits <= 8 or (samples == 1 and (bits == 32 or not is_float)):
        return False
    if photometric == 1 and samples == 1 and bits == 64:
        return True
    if photometric == 2 and samples in (3, 4) and tags.get(284, 1) == 1 and (bits >= 32 if is_float else bits == 16):
        return True
    raise ImageReadError(f"{name} is a TIFF of an unusual kind ({samples} channels of {bits} bits); {_CONVERT}")


def _without_tiff_orientation(data: bytes) -> bytes:
    """Set the orientation tag to 1: OpenCV applies it in some versions and not in others."""
    order = "<" if data[:2] == b"II" else ">"
    big = b"+" in data[:4]
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    first, entry, value = (offset + 8, 20, 12) if big else (offset + 2, 12, 8)
    patched = bytearray(data)
    for position in range(first, first + count * entry, entry):
        if struct.unpack_from(order + "H", data, position)[0] == _ORIENTATION:
            struct.pack_into(order + "H", patched, position + value, 1)
    return bytes(patched)


def _images_inside(folder: Path, recursive: bool) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(parent, name)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _quantize(image: Tensor, bits: int) -> Pixels:
    """(H, W) or (H, W, 3) unsigned integers."""
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise ShapeError(f"image has shape {tuple(image.shape)}; give (C, H, W) with 1 or 3 channels")
    if not image.is_floating_point():
        raise OptionError(f"image has type {image.dtype}; give floats from 0 to 1")
    image = image.detach().cpu().float()
    if not image.isfinite().all():
        raise NonFiniteError("image holds NaN or infinite values; it was not written, check how it was made")
    scaled = (image.clamp(0, 1) * (2**bits - 1)).round().permute(1, 2, 0)
    pixels: Pixels = scaled.numpy().astype(np.uint8 if bits == 8 else np.uint16)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def _encode(pixels: Pixels, suffix: str) -> bytes:
    if pixels.dtype == np.uint16:
        import cv2

        reordered = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])
        return bytes(cv2.imencode(suffix, reordered)[1].tobytes())
    buffer = BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix[1:], suffix[1:].upper())
    options: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options.get(kind, {}))
    return buffer.getvalue()


def _with_text_chunk(png: bytes, key: str, text: str) -> bytes:
    """Insert a tEXt chunk right after the header of a PNG, before its pixels."""
    body = b"tEXt" + key.encode("latin-1") + b"\0" + text.encode("latin-1")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:_PNG_HEADER_END] + chunk + png[_PNG_HEADER_END:]
