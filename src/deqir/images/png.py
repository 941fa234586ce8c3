"""What PNG files hold that Pillow and OpenCV do not tell or write."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = 33  # the signature, then the IHDR chunk


def png_depth(file: BinaryIO) -> tuple[int, int]:
    """Bits a channel and colour type (0 grey, 4 grey with alpha); leaves the file at its start."""
    file.seek(0)
    header = file.read(HEADER_END)
    file.seek(0)
    return header[24], header[25]


def most_frames(file: BinaryIO) -> int:
    """The frames that an animated PNG can have by what is in the file, which may be less than it claims."""
    position, frames = len(SIGNATURE), 1
    file.seek(position)
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        frames += kind == b"fcTL"
        position += 12 + length
        file.seek(position)
    file.seek(0)
    return frames


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """Insert a chunk right after the header of a PNG, before its palette and pixels."""
    body = kind + content
    chunk = struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    return png[:HEADER_END] + chunk + png[HEADER_END:]


def with_text(png: bytes, key: str, text: str) -> bytes:
    """Insert a tEXt chunk."""
    return with_chunk(png, b"tEXt", key.encode("latin-1") + b"\0" + text.encode("latin-1"))


def with_colour_profile(png: bytes, profile: bytes) -> bytes:
    """Insert an ICC profile."""
    return with_chunk(png, b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))


def with_exif(png: bytes, exif: bytes) -> bytes:
    """Insert EXIF data."""
    return with_chunk(png, b"eXIf", exif.removeprefix(b"Exif\0\0"))
