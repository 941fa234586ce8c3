"""Image files: reading, writing, masks, and what is kept beside the pixels."""

from deqir.images.attachments import Attachments
from deqir.images.files import (
    IMAGE_SUFFIXES,
    StrPath,
    atomic_write,
    existing_file,
    find_images,
    forbidden,
    pixel_limit,
    staged,
)
from deqir.images.jpeg import JpegQuantization, read_quantization
from deqir.images.masks import read_mask
from deqir.images.metadata import METADATA_KEY, metadata_to_json, read_metadata
from deqir.images.reading import Photo, frame_count, read_image, read_photo
from deqir.images.writing import DEEP_SUFFIXES, FORMATS, WRITABLE_SUFFIXES, encode_image, write_image

__all__ = [
    "DEEP_SUFFIXES",
    "FORMATS",
    "IMAGE_SUFFIXES",
    "METADATA_KEY",
    "WRITABLE_SUFFIXES",
    "Attachments",
    "JpegQuantization",
    "Photo",
    "StrPath",
    "atomic_write",
    "encode_image",
    "existing_file",
    "find_images",
    "forbidden",
    "frame_count",
    "metadata_to_json",
    "pixel_limit",
    "read_image",
    "read_mask",
    "read_metadata",
    "read_photo",
    "read_quantization",
    "staged",
    "write_image",
]
