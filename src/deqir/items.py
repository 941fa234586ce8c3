"""What a run restores: the frames of its files, in which order, and the name of each result."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deqir.errors import DeqirError
from deqir.images import frame_count


@dataclass(frozen=True)
class Item:
    """One thing to restore: frame ``frame`` of ``file``, into ``target``."""

    file: Path
    target: Path
    frame: int = 0


def items(files: list[Path], folder: Path, suffix: str = ".png") -> list[Item]:
    """What there is to restore in ``files``; the frames of an animation or the pages of a TIFF get numbered results."""
    found: list[Item] = []
    for file, target in zip(files, targets(files, folder, suffix), strict=True):
        count = _frames(file)
        digits = max(4, len(str(count)))
        numbered = (target.with_name(f"{target.stem}-{k + 1:0{digits}d}{suffix}") for k in range(count))
        found += [Item(file, target)] if count == 1 else [Item(file, name, k) for k, name in enumerate(numbered)]
    return found


def in_order(files: list[Path]) -> list[Path]:
    """``files`` sorted by their names, the numbers in them as numbers: frame 10 comes after frame 9."""
    return sorted(files, key=lambda file: re.sub(r"\d+", lambda number: number[0].zfill(20), str(file)))


def _frames(file: Path) -> int:
    """The frames of ``file``; 1 where it cannot be read, which shows when it is restored."""
    try:
        return 1 if file.suffix.lower() == ".safetensors" else frame_count(file)
    except DeqirError:
        return 1


def targets(files: list[Path], folder: Path, suffix: str = ".png") -> list[Path]:
    """An output name for every file: its stem, or its whole name where two share the stem."""
    stems = [file.stem for file in files]
    names = [file.stem if stems.count(file.stem) == 1 else file.name for file in files]
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(folder / f"{name if seen[name] == 1 else f'{name}-{seen[name]}'}{suffix}")
    return unique
