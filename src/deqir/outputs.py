"""Where results go: what may be replaced, folders, hashes, and the records of a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from deqir.errors import ImageReadError, OptionError, OutputError
from deqir.images import atomic_write, pixel_limit

Record = dict[str, Any]


def refuse_existing(target: Path, overwrite: bool, source: Path | None = None) -> None:
    """Raise OutputError where ``target`` exists and may not be replaced; the ``source`` itself never may."""
    if target.exists() and source is not None and source.exists() and target.samefile(source):
        raise OutputError(f"the result of {source} would replace the photo itself; choose another output")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; choose another output or add --overwrite")


def refuse_huge(shape: tuple[int, int, int], file: Path) -> None:
    """Raise OptionError where the restored image would be larger than any that is read."""
    if shape[1] * shape[2] > pixel_limit():
        raise OptionError(
            f"{file} would become {shape[2]} x {shape[1]} pixels, more than {pixel_limit():,}; choose a smaller scale"
        )


def make_folder(folder: Path) -> None:
    """Create ``folder``; raises OutputError where that is impossible or it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".deqir-write-test.part"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"output folder {folder} cannot be written ({error.strerror}); choose another") from None


def mask_path(target: Path) -> Path:
    """Where the mask that was detected for the result ``target`` is written."""
    return target.with_name(f"{target.stem}-mask.png")


def file_hash(file: Path) -> str:
    """The SHA-256 of the bytes of ``file``. Raises ImageReadError where it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:  # ValueError for a name with a null byte
        reason = getattr(error, "strerror", None) or error
        raise ImageReadError(f"{file} cannot be read ({reason}); check the path") from None


def write_records(path: Path, records: list[Record]) -> None:
    """Write the records of a run as one JSON list, at once or not at all."""
    atomic_write(path, (json.dumps(records, indent=2, allow_nan=False, default=_plain) + "\n").encode())


def _plain(value: object) -> object:
    if isinstance(value, (Path, torch.device)):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
