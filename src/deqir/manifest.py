"""The manifest of a folder of results: one JSON line per image, by which an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from deqir.errors import OutputError
from deqir.images import existing_file, staged

Record = dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """What is done in a folder of results, as it was found at the start, and where the rest is noted.

    ``path``: the JSON lines file that this process appends to. ``settings``: everything beside the input that decides
    a result, as plain JSON. ``finished``: the last record of every result, by its file name, in all manifests of the
    folder; ``existing``: the bytes of every file in the folder. With ``overwrite`` anything may be replaced; a process
    that is not ``writable`` knows what is done but writes nothing.
    """

    path: Path
    settings: Mapping[str, Any]
    finished: Mapping[str, Record]
    existing: Mapping[str, int]
    overwrite: bool = False
    writable: bool = True

    def is_done(self, target: Path, source: Path) -> bool:
        """Whether ``target`` is there and was made of ``source`` as it is now."""
        record = self.finished.get(target.name)
        if record is None or self.existing.get(target.name) != record["bytes"]:
            return False
        made_of, now = record["input"], identity(source)
        return (made_of["bytes"], made_of["modified_ns"]) == (now["bytes"], now["modified_ns"])

    def refuse_foreign(self, target: Path, source: Path) -> None:
        """Raise OutputError where ``target`` existed at the start and was not made of ``source`` by an earlier run."""
        record = self.finished.get(target.name)
        ours = record is not None and record["input"]["path"] == str(source.resolve())
        if target.name in self.existing and not ours and not self.overwrite:
            raise OutputError(f"{target} exists already; choose another output or add --overwrite")

    def publish(self, target: Path, data: bytes, made_of: Mapping[str, Any], record: Record) -> Record:
        """Let ``target`` with ``data`` and the line of its ``record`` appear, and return the line.

        An older ``target`` goes first and the line comes before the new one: whenever the process is killed, a line
        without its file is all that may be left over, and the file is made again.
        """
        about = {"out": target.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        line = {**record, **about, "input": dict(made_of), "settings": dict(self.settings)}
        if self.writable:
            with staged(target, data, _partial_name(target)):
                target.unlink(missing_ok=True)
                self._append(line)
        return line

    def note_failure(self, target: Path, record: Record) -> Record:
        """Append the record of a result that could not be made, and return the line."""
        line = {**record, "out": target.name, "settings": dict(self.settings)}
        if self.writable:
            self._append(line)
        return line

    def _append(self, line: Record) -> None:
        """Add ``line``, on a line of its own also behind one that a full disk has cut short."""
        data = (json.dumps(line, allow_nan=False) + "\n").encode()
        try:
            with self.path.open("ab+") as file:
                file.write(data if ends_whole(file) else b"\n" + data)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written ({error.strerror}); free space and run again") from None


def open_manifest(
    folder: Path,
    settings: Mapping[str, Any],
    overwrite: bool = False,
    rank: int = 0,
    ranks: int = 1,
    writable: bool = True,
) -> Manifest:
    """The manifest that process ``rank`` of ``ranks`` keeps in ``folder``; with ``overwrite`` a new one.

    Raises OutputError where finished results in ``folder`` were made with other settings or another version.
    """
    settings = json.loads(json.dumps(settings, default=str))
    path = _path(folder, rank)
    if overwrite and writable:
        for number, old in _manifests(folder):
            if number % ranks == rank:
                old.unlink(missing_ok=True)
    existing = {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
    finished = {} if overwrite else _finished(folder, settings, existing)
    return Manifest(path, settings, finished, existing, overwrite, writable)


def read_records(folder: Path) -> dict[str, Record]:
    """The last record of every result in all manifests of ``folder``, by the file name of the result.

    A record of success wins over failures; lines that a killed process left unfinished are passed over.
    """
    found: dict[str, Record] = {}
    for _, path in _manifests(folder):
        for line in path.read_bytes().splitlines():
            record = _parsed(line)
            if record is not None and ("error" not in record or "error" in found.get(record["out"], record)):
                found[record["out"]] = record
    return found


def ends_whole(file: BinaryIO) -> bool:
    """Whether ``file``, open for reading and appending, is empty or ends with a whole line."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def whole(folder: Path, line: Record) -> Record:
    """``line`` of a manifest in ``folder`` as a record that stands alone: with the path and the hash of its files."""
    record = {**line, "out": str(folder / line["out"])}
    if "input" in line and "sha256" in line:
        record |= {"out_sha256": line["sha256"], "file_sha256": line["input"].get("sha256")}
    return record


def identity(source: Path) -> dict[str, Any]:
    """What tells one version of a file from another: path, size, time of change. Raises ImageReadError without one."""
    status = existing_file(source).stat()
    return {"path": str(source.resolve()), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of all files in a folder, their names included."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(part for part in path.rglob("*") if part.is_file()):
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as opened:
            while chunk := opened.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


def content_hashes(named: Iterable[object]) -> dict[str, str]:
    """The hash of everything in ``named`` that is the path of a file or folder, by that path."""
    paths = (name for name in named if isinstance(name, str) and os.path.exists(name))
    return {name: content_hash(Path(name)) for name in paths}


def _finished(folder: Path, settings: Mapping[str, Any], existing: Mapping[str, int]) -> dict[str, Record]:
    finished = {name: record for name, record in read_records(folder).items() if "error" not in record}
    for name, record in finished.items():
        if name in existing and record["settings"] != settings:
            raise OutputError(
                f"{folder} holds results of other settings ({_difference(record['settings'], settings)}); "
                "add --overwrite to make all of them again, or choose another folder"
            )
    return finished


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in keys)


def _path(folder: Path, rank: int) -> Path:
    return folder / ("manifest.jsonl" if rank == 0 else f"manifest-{rank}.jsonl")


def _manifests(folder: Path) -> Iterator[tuple[int, Path]]:
    """The rank and the path of every manifest in ``folder``."""
    for path in sorted(folder.glob("manifest*.jsonl")):
        number = path.stem.removeprefix("manifest").removeprefix("-") or "0"
        if number.isdecimal():
            yield int(number), path


def _parsed(line: bytes) -> Record | None:
    """The record in ``line``; None where it is not whole, or is none of a file in the manifest's own folder."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and _is_whole(record) else None


def _is_whole(record: Record) -> bool:
    source, name, made_of = (record.get(key) for key in ("file", "out", "input"))
    if not (isinstance(source, str) and isinstance(name, str)) or name in ("", "..") or name != Path(name).name:
        return False
    return "error" in record or (
        isinstance(made_of, dict)
        and {"path", "bytes", "modified_ns"} <= made_of.keys()
        and isinstance(record.get("bytes"), int)
        and isinstance(record.get("settings"), dict)
    )


def _partial_name(target: Path) -> str:
    """The same hidden name in every run, so that a resumed one clears away what a killed one left."""
    return f".{hashlib.blake2b(target.name.encode(), digest_size=8).hexdigest()}.part"
