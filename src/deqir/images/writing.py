"""Writing image files: rounded, whole or not at all, with what is kept beside the pixels."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deqir.errors import NonFiniteError, OptionError, OutputError, ShapeError
from deqir.images.attachments import Attachments
from deqir.images.files import StrPath, atomic_write, one_line
from deqir.images.metadata import METADATA_KEY, metadata_to_json
from deqir.images.png import with_colour_profile, with_exif, with_text

Pixels = NDArray[Any]

FORMATS = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tif"}
"""The formats that can be asked for by name, and their suffixes."""

WRITABLE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
DEEP_SUFFIXES = (".png", ".tif", ".tiff")
OPAQUE_SUFFIXES = (".jpg", ".jpeg")
LONGEST_JPEG_EXIF = 65533


def write_image(
    path: StrPath,
    image: Tensor,
    bits: int = 8,
    metadata: dict[str, Any] | None = None,
    attachments: Attachments | None = None,
) -> None:
    """Write what ``encode_image`` makes of ``image``; the file appears whole or not at all.

    Raises what ``encode_image`` raises, and OutputError where the disk refuses.
    """
    atomic_write(path, encode_image(path, image, bits, metadata, attachments))


def encode_image(
    path: StrPath,
    image: Tensor,
    bits: int = 8,
    metadata: dict[str, Any] | None = None,
    attachments: Attachments | None = None,
) -> bytes:
    """The file of a (C, H, W) image, C = 1 or 3, in the format that the suffix of ``path`` names.

    Values are clipped to [0, 1] and rounded to 8 or, for PNG and TIFF, 16 bits. WebP is lossless (and always colour),
    JPEG has quality 95. ``metadata`` is kept as JSON in a text chunk of a PNG; other formats cannot carry it and
    leave it out. ``attachments``: opacity fitted to the image (not in JPEG; a 16-bit grey PNG with it becomes colour),
    colour profile, and EXIF data (not in a 16-bit TIFF, and in JPEG at most 64 KiB). Raises OptionError for a suffix,
    bit depth or metadata that cannot be written, ShapeError and NonFiniteError for such an image, OutputError where
    the format refuses.
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
    fitted = (attachments or Attachments()).fitted(tuple(image.shape))
    if image.shape[0] == 1 and (suffix == ".webp" or (suffix == ".png" and bits == 16 and fitted.alpha is not None)):
        fitted = replace(fitted, icc_profile=None)  # grey is stored as colour there
    if fitted.alpha is not None and suffix not in OPAQUE_SUFFIXES:
        pixels = np.concatenate([np.atleast_3d(pixels), np.atleast_3d(_quantize(fitted.alpha, bits))], 2)
    try:
        data = _encode(pixels, suffix, fitted)
    except Exception as error:  # encoders raise nearly anything on a size beyond their format
        raise OutputError(
            f"{path} cannot be encoded ({one_line(error)}); choose .png or .tif, or a smaller image"
        ) from error
    if encoded_metadata is not None and suffix == ".png":
        data = with_text(data, METADATA_KEY, encoded_metadata)
    return data


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


def _encode(pixels: Pixels, suffix: str, attachments: Attachments) -> bytes:
    if suffix == ".png":
        return _encode_png(pixels, attachments)
    if pixels.dtype == np.uint16:
        return _encode_deep_tiff(pixels, attachments)
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix[1:], suffix[1:].upper())
    presets: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    options = presets.get(kind, {})
    exif = attachments.exif
    if exif is not None and not (kind == "JPEG" and len(exif) > LONGEST_JPEG_EXIF):
        options["exif"] = exif
    if attachments.icc_profile is not None:
        options["icc_profile"] = attachments.icc_profile
    return _encode_with_pillow(pixels, kind, options)


def _encode_with_pillow(pixels: Pixels, kind: str, options: dict[str, Any]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def _encode_png(pixels: Pixels, attachments: Attachments) -> bytes:
    data = _encode_deep_png(pixels) if pixels.dtype == np.uint16 else _encode_with_pillow(pixels, "PNG", {})
    if attachments.exif is not None:
        data = with_exif(data, attachments.exif)
    return data if attachments.icc_profile is None else with_colour_profile(data, attachments.icc_profile)


def _encode_deep_png(pixels: Pixels) -> bytes:
    import cv2

    if pixels.ndim == 3:
        order = (
            [2, 1, 0, 3][: pixels.shape[2]] if pixels.shape[2] > 2 else [0, 0, 0, 1]
        )  # BGR; OpenCV has no grey alpha
        pixels = np.ascontiguousarray(pixels[..., order])
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _encode_deep_tiff(pixels: Pixels, attachments: Attachments) -> bytes:
    from tifffile import imwrite

    buffer = BytesIO()
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    imwrite(
        buffer,
        pixels,
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        iccprofile=attachments.icc_profile,
        compression="zlib",
        metadata=None,
    )
    return buffer.getvalue()
