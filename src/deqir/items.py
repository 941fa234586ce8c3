"""What a run restores: the frames of its files, in which order, and the name of each result."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from deqir.errors import DeqirError
from deqir.images import frame_count


@dataclass(frozen=True)
class Item:
    """One thing to restore: frame ``frame`` of the ``frames`` of ``file``, into ``target``."""

    file: Path
    target: Path
    frame: int = 0
    frames: int = 1


def items(files: list[Path], folder: Path, suffix: str = ".png") -> list[Item]:
    """What there is to restore in ``files``; the frames of an animation or the pages of a TIFF get numbered results."""
    pairs = zip(files, targets(files, folder, suffix), strict=True)
    return [item for file, target in pairs for item in frames(file, target)]


def frames(file: Path, target: Path) -> list[Item]:
    """What there is to restore in one file, whose result is ``target``, or numbered ones beside it."""
    count = _frame_count(file)
    if count == 1:
        return [Item(file, target)]
    digits = max(4, len(str(count)))
    names = [f"{target.stem}-{k + 1:0{digits}d}{target.suffix}" for k in range(count)]
    return [Item(file, target.with_name(name), k, count) for k, name in enumerate(names)]


def in_order(files: list[Path]) -> list[Path]:
    """``files`` sorted by their names, the numbers in them as numbers: frame 10 comes after frame 9."""
    return sorted(files, key=lambda file: re.sub(r"\d+", lambda number: number[0].zfill(20), str(file)))


def _frame_count(file: Path) -> int:
    """The frames of ``file``; 1 where it cannot be read, which shows when it is restored."""
    try:
        return 1 if file.suffix.lower() == ".safetensors" else frame_count(file)
    except DeqirError:
        return 1


def targets(files: list[Path], folder: Path, suffix: str = ".png") -> list[Path]:
    """An output name for every file: its stem, or its whole name where two share the stem."""
    stems = Counter(file.stem for file in files)
    names = [file.stem if stems[file.stem] == 1 else file.name for file in files]
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(folder / f"{name if seen[name] == 1 else f'{name}-{seen[name]}'}{suffix}")
    return unique
