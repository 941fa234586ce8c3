"""Reading image files: the pixels, upright and in [0, 1], and what is kept beside them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from io import BytesIO
from mmap import ACCESS_READ, mmap
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deqir.errors import ImageReadError
from deqir.images.attachments import Attachments, kept_exif, rgb_from_cmyk
from deqir.images.files import CONVERT, PILLOW_FORMATS, PIXEL_LIMIT, StrPath, limit_frames, opened, pixel_limit
from deqir.images.png import most_frames, png_depth
from deqir.images.tiff import ORIENTATION, at_page, needs_cv2, page_offsets, tiff_tags, without_orientation

Pixels = NDArray[Any]

_GREY_MODES = ("1", "L", "LA", "La")
_ANIMATED_FORMATS = ("PNG", "WEBP", "GIF")
_TIFF_PROFILE = 34675


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo (C, H, W) in [0, 1], C = 1 for grey and 3 for colour, and what its file holds beside the colours."""

    image: Tensor
    attachments: Attachments = field(default_factory=Attachments)


def read_image(path: StrPath, max_pixels: int | None = None) -> Tensor:
    """Read an image file as float32 (C, H, W) in [0, 1]: ``read_photo`` without what is beside the colours."""
    return read_photo(path, max_pixels=max_pixels).image


def read_photo(path: StrPath, frame: int = 0, max_pixels: int | None = None) -> Photo:
    """Read one frame of a PNG, JPEG, WebP, TIFF, GIF or BMP file.

    The EXIF orientation is applied, palettes become RGB, CMYK becomes sRGB by its ICC profile, grey stays grey, and
    16-bit grey and RGB keep their 16 bits. ``frame`` counts the frames of an animation and the pages of a TIFF from 0.
    The header's size is held against ``max_pixels`` (None: ``pixel_limit``) before anything is decoded. Raises
    ImageReadError for a file that cannot be read, has fewer frames or more pixels.
    """
    limit = pixel_limit() if max_pixels is None else max_pixels
    with opened(path) as file:
        pixels, alpha, attachments = _decode(_at_frame(file, frame, str(path)), frame, str(path), limit)
    image = torch.from_numpy(pixels)
    opacity = None if alpha is None or bool((alpha == 1).all()) else torch.from_numpy(alpha)[None]
    upright = (image[None] if image.ndim == 2 else image.permute(2, 0, 1)).contiguous()
    return Photo(upright, replace(attachments, alpha=opacity))


def frame_count(path: StrPath, max_pixels: int | None = None) -> int:
    """The frames of an animated PNG, WebP or GIF, the pages of a TIFF without its previews; 1 for other images.

    An animated PNG that claims more frames than its file holds has one more than that, which cannot be read. Raises
    ImageReadError for a file that cannot be read or has a later frame of more than ``max_pixels``.
    """
    limit = pixel_limit() if max_pixels is None else max_pixels
    with opened(path) as file:
        if tiff_tags(file) is not None:
            with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                return max(1, len(page_offsets(data)))
        with Image.open(file, formats=PILLOW_FORMATS) as image:
            limit_frames(limit)
            count = int(getattr(image, "n_frames", 1)) if image.format in _ANIMATED_FORMATS else 1
            return min(count, most_frames(file) + 1) if image.format == "PNG" and count > 1 else count


def _at_frame(file: BinaryIO, frame: int, name: str) -> BinaryIO:
    """The file itself, or, for a later page of a TIFF, one that begins with that page."""
    if frame == 0 or tiff_tags(file) is None:
        return file
    data = file.read()
    offsets = page_offsets(data)
    if frame >= len(offsets):
        raise ImageReadError(f"{name} has {len(offsets)} pages; there is no page {frame + 1}, choose an earlier one")
    return BytesIO(at_page(data, offsets[frame]))


def _decode(file: BinaryIO, frame: int, name: str, max_pixels: int) -> tuple[Pixels, Pixels | None, Attachments]:
    """Float32 pixels (H, W) or (H, W, 3) and opacity (H, W), both upright and in [0, 1]; profile and EXIF."""
    tags = tiff_tags(file)
    if tags is not None:
        _check_size(int(tags[256]), int(tags[257]), name, max_pixels)
        if needs_cv2(tags, name):
            pixels, alpha = _decode_with_cv2(without_orientation(file.read()), name)
            _check_size(pixels.shape[1], pixels.shape[0], name, max_pixels)
            orientation, profile = int(tags.get(ORIENTATION, 1)), tags.get(_TIFF_PROFILE)
            kept = Attachments(icc_profile=profile if isinstance(profile, bytes) else None, bits=16)
            return _upright(pixels, orientation), _upright_or_none(alpha, orientation), kept
    with Image.open(file, formats=PILLOW_FORMATS) as image:
        _check_size(image.width, image.height, name, max_pixels)
        limit_frames(max_pixels)
        if tags is None and frame:
            _seek(image, frame, name)
        profile = image.info.get("icc_profile")
        image.load()
        orientation = int(image.getexif().get(ORIENTATION, 1))  # 1 for a TIFF, which Pillow has turned by now
        bits, colour_type = png_depth(file) if image.format == "PNG" else (8, 0)
        if bits == 16 and colour_type != 0 and not frame:
            pixels, alpha = _decode_with_cv2(file.read(), name)
            _check_size(pixels.shape[1], pixels.shape[0], name, max_pixels)
            pixels = pixels[..., 0] if colour_type == 4 else pixels  # grey with alpha
        else:
            pixels, alpha = _decode_with_pillow(image, tags, profile, name), _opacity(image)
        read = 16 if image.mode.startswith(("I", "F")) or (bits == 16 and not frame) else 8
        kept_profile = None if image.mode == "CMYK" else profile
        attachments = Attachments(icc_profile=kept_profile, exif=kept_exif(image), bits=read)
        return _upright(pixels, orientation), _upright_or_none(alpha, orientation), attachments


def _seek(image: Image.Image, frame: int, name: str) -> None:
    count = getattr(image, "n_frames", 1)
    if frame >= count:
        raise ImageReadError(f"{name} has {count} frames; there is no frame {frame + 1}, choose an earlier one")
    image.seek(frame)


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageReadError(f"{name} has no pixels ({width} x {height}); use another image")
    if width * height > max_pixels:
        raise ImageReadError(
            f"{name} says it has {width} x {height} pixels, more than the {max_pixels} allowed; "
            f"make it smaller, or raise {PIXEL_LIMIT} if you trust the file"
        )


def _opacity(image: Image.Image) -> Pixels | None:
    """The opacity of an image of 8 bits (alpha, or a transparent colour), (H, W); None where it has none."""
    if not image.has_transparency_data or image.mode.startswith(("I", "F")):
        return None
    return np.asarray(image.convert("RGBA").getchannel("A")).astype(np.float32) / 255


def _decode_with_pillow(image: Image.Image, tags: dict[int, Any] | None, profile: bytes | None, name: str) -> Pixels:
    if image.mode.startswith("I;16") or (image.mode == "I" and tags is None):
        peak = 2 ** int(tags[258][0]) - 1 if tags else 65535  # a TIFF may hold 12 bits
        return _grey_polarity(np.asarray(image).astype(np.float32) / peak, tags)
    if image.mode == "F":
        return _grey_polarity(_checked_floats(np.asarray(image), name), tags)
    if image.mode == "I":
        raise ImageReadError(f"{name} holds signed or 32-bit integers, whose white is unknown; {CONVERT}")
    if image.mode == "CMYK":
        converted = rgb_from_cmyk(image, profile)
    else:
        converted = image.convert("L" if image.mode in _GREY_MODES else "RGB")
    return np.asarray(converted).astype(np.float32) / 255


def _decode_with_cv2(data: bytes, name: str) -> tuple[Pixels, Pixels | None]:
    """Colours and opacity of 16-bit or float colour, which Pillow would cut to 8 bits or refuse."""
    import cv2

    logging = getattr(cv2.utils, "logging", cv2)  # OpenCV before 4.13 has no module for it
    level = logging.getLogLevel()
    logging.setLogLevel(0)
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        logging.setLogLevel(level)
    if decoded is None:
        raise ImageReadError(f"{name} is truncated, damaged or of an unusual kind; copy it again, or {CONVERT}")
    scaled = decoded.astype(np.float32) / 65535 if decoded.dtype == np.uint16 else _checked_floats(decoded, name)
    if scaled.ndim == 2:
        return scaled, None
    return scaled[..., [2, 1, 0]], scaled[..., 3] if scaled.shape[2] == 4 else None


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


def _upright_or_none(pixels: Pixels | None, orientation: int) -> Pixels | None:
    return None if pixels is None else _upright(pixels, orientation)
