"""The runs so far, one JSON line each, so that an interrupted benchmark goes on where it was."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deqir.errors import OutputError
from deqir.manifest import ends_whole

Record = dict[str, Any]


@dataclass(frozen=True)
class Journal:
    """A file of JSON lines, each with the ``key`` of its case; the last line of a key counts."""

    path: Path

    def read(self) -> dict[str, Record]:
        """The records by key. A line that an interrupt cut short is left out; its case is run again."""
        if not self.path.exists():
            return {}
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError as error:
            raise OutputError(f"{self.path} cannot be read ({error.strerror}); choose another output") from None
        records = (_record(line) for line in lines)
        return {record["key"]: record for record in records if record is not None}

    def add(self, key: str, record: Record) -> None:
        """Append one record; it is on the disk before this returns. Raises OutputError where that is impossible."""
        line = json.dumps({"key": key, **record}, allow_nan=False).encode() + b"\n"
        try:
            with self.path.open("ab+") as file:
                file.write(b"" if ends_whole(file) else b"\n")
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written ({error.strerror}); free space, or choose another output"
            ) from None


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None
