"""What TIFF files hold that Pillow reads with loss, or not at all."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Any, BinaryIO

from PIL import TiffImagePlugin

from deqir.errors import ImageReadError
from deqir.images.files import CONVERT

ORIENTATION = 274
SUBFILE_TYPE = 254
MOST_PAGES, MOST_ENTRIES = 10_000, 500_000
DECISIVE = {256: "width", 257: "height", 258: "bits", 277: "channels", 322: "tile width", 323: "tile height"}
"""Tags that decide how much memory the pixels take; where one is given twice, readers differ in which they follow."""
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def tiff_tags(file: BinaryIO) -> dict[int, Any] | None:
    """The tags of a TIFF's first page, or None for a file of another kind; leaves the file at its start."""
    header = file.read(8)
    if header[:4] not in _MAGIC:
        file.seek(0)
        return None
    if b"+" in header[:4]:
        header += file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    start = directory.next
    file.seek(start)
    directory.load(file)
    _refuse_repeated(file, _Layout.of(header), start)
    file.seek(0)
    return dict(directory)


def _refuse_repeated(file: BinaryIO, layout: _Layout, start: int) -> None:
    """Raise ValueError where a decisive tag is given twice in the directory that begins at ``start``."""
    file.seek(start)
    head = file.read(struct.calcsize(layout.counter))
    directory = head + file.read(layout.entry * struct.unpack(layout.counter, head)[0])
    tags = Counter(tag for tag, _ in layout.entries(directory, 0))
    for tag, name in DECISIVE.items():
        if tags[tag] > 1:
            raise ValueError(f"it gives its {name} twice")


def needs_cv2(tags: dict[int, Any], name: str) -> bool:
    """Whether a TIFF is one that Pillow reads with loss or not at all; one that nothing here reads raises."""
    bits, samples = max(tags.get(258, (1,))), tags.get(277, 1)
    is_float, photometric = tags.get(339, (1,))[0] == 3, tags.get(262)
    if bits <= 8 or (samples == 1 and (bits == 32 or not is_float)):
        return False
    if photometric == 1 and samples == 1 and bits == 64:
        return True
    if photometric == 2 and samples in (3, 4) and tags.get(284, 1) == 1 and (bits >= 32 if is_float else bits == 16):
        return True
    raise ImageReadError(f"{name} is a TIFF of an unusual kind ({samples} channels of {bits} bits); {CONVERT}")


def without_orientation(data: bytes) -> bytes:
    """Set the orientation tag to 1: OpenCV applies it in some versions and not in others."""
    layout = _Layout.of(data)
    patched = bytearray(data)
    for tag, position in layout.entries(data, layout.first(data)):
        if tag == ORIENTATION:
            struct.pack_into(layout.order + "H", patched, position + layout.value_at, 1)
    return bytes(patched)


def page_offsets(data: bytes | mmap) -> list[int]:
    """Where the directory of every page of a TIFF begins; previews (pages of reduced resolution) are left out.

    Raises ValueError where the directories, which may overlap, have more entries than any real file.
    """
    layout, room = _Layout.of(data), MOST_ENTRIES
    offsets: list[int] = []
    seen: set[int] = set()
    offset = layout.first(data)
    while offset and offset not in seen and len(seen) < MOST_PAGES:
        seen.add(offset)
        room -= layout.count(data, offset)
        if room < 0:
            raise ValueError(f"its directories have more than {MOST_ENTRIES} entries")
        entries = list(layout.entries(data, offset))
        preview = any(tag == SUBFILE_TYPE and layout.value(data, position) & 1 for tag, position in entries)
        if not preview or not offsets:
            offsets.append(offset)
        offset = layout.following(data, offset, len(entries))
    return offsets


def at_page(data: bytes, offset: int) -> bytes:
    """The TIFF whose first page is the one whose directory begins at ``offset``."""
    layout = _Layout.of(data)
    patched = bytearray(data)
    struct.pack_into(layout.pointer, patched, layout.header, offset)
    return bytes(patched)


@dataclass(frozen=True)
class _Layout:
    """Byte order and field sizes of a TIFF or BigTIFF: struct formats, and the positions within a directory."""

    order: str
    pointer: str
    header: int
    counter: str
    entry: int
    value_at: int

    @classmethod
    def of(cls, data: bytes | mmap) -> _Layout:
        order = "<" if data[:2] == b"II" else ">"
        if b"+" in data[:4]:
            return cls(order, order + "Q", 8, order + "Q", 20, 12)
        return cls(order, order + "I", 4, order + "H", 12, 8)

    def first(self, data: bytes | mmap) -> int:
        """Where the first directory begins."""
        return int(struct.unpack_from(self.pointer, data, self.header)[0])

    def count(self, data: bytes | mmap, offset: int) -> int:
        """The number of entries of the directory at ``offset``."""
        return int(struct.unpack_from(self.counter, data, offset)[0])

    def entries(self, data: bytes | mmap, offset: int) -> Iterator[tuple[int, int]]:
        """The tag and the position of every entry of the directory at ``offset``."""
        start = offset + struct.calcsize(self.counter)
        for position in range(start, start + self.count(data, offset) * self.entry, self.entry):
            yield struct.unpack_from(self.order + "H", data, position)[0], position

    def value(self, data: bytes | mmap, position: int) -> int:
        """The number in the entry at ``position``, which is one of 16 or 32 bits."""
        (kind,) = struct.unpack_from(self.order + "H", data, position + 2)
        form = self.order + ("H" if kind == 3 else "I")
        return int(struct.unpack_from(form, data, position + self.value_at)[0])

    def following(self, data: bytes | mmap, offset: int, count: int) -> int:
        """Where the directory after the one at ``offset``, of ``count`` entries, begins; 0 after the last."""
        end = offset + struct.calcsize(self.counter) + count * self.entry
        return int(struct.unpack_from(self.pointer, data, end)[0])
