"""Recorded restorations made again, to see whether they come out the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory

from deqir import manifest
from deqir.errors import DeqirError, RecordReadError
from deqir.images import existing_file, read_image
from deqir.images.files import one_line
from deqir.jobs import RestoreJob
from deqir.outputs import Record, file_hash
from deqir.priors import Denoiser, load_prior

Again = Callable[[Record, Path], None]

REPORTED = "run.json"
"""The file of a report's folder that holds the record of its restoration."""

NONSENSE = (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError, RuntimeError, OSError)
"""What values that no run has recorded make of the code that repeats one."""


class Outcome(str, Enum):
    """How a recorded result compares with the one made again."""

    IDENTICAL = "identical"
    EQUAL = "equal within the tolerance"
    DIFFERENT = "different"
    NOT_REPEATED = "not repeated"


@dataclass(frozen=True)
class Verdict:
    """What became of one record; ``detail`` says by how much the results differ, or why nothing was repeated."""

    file: str
    outcome: Outcome
    detail: str = ""


def read_records(path: Path) -> list[Record]:
    """The records in a file of ``deqir restore --stats``, in a report, or in the manifests of a folder of results.

    Raises RecordReadError where there are none.
    """
    path = path / REPORTED if (path / REPORTED).is_file() else path
    if path.is_dir() or path.suffix == ".jsonl":
        return _manifest_records(path)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordReadError(f"{path} is not readable JSON ({type(error).__name__}); give a file of --stats") from None
    if isinstance(records, dict) and "result" in records:
        raise RecordReadError(
            f"{path} is of the web page, which keeps no photo; use deqir restore PHOTO --config {path}"
        )
    if isinstance(records, dict) and "format" in records:
        records = [_of_report(path, records.get("settings"))]
    if isinstance(records, dict) and {"command", "status"} & records.keys():
        records = [{**records, "out_dir": str(path.parent)}] if "command" in records else [records]
    if not (isinstance(records, list) and records and all(isinstance(record, dict) for record in records)):
        raise RecordReadError(f"{path} holds no records of restorations; give a file of deqir restore --stats")
    return records


def _of_report(path: Path, record: object) -> object:
    """The ``record`` in a report's file ``path``; for one image of a folder, what the folder's manifest says of it."""
    folder = path.absolute().parent
    if not isinstance(record, dict) or "job" in record:
        return record
    for line in manifest.read_records(folder.parent).values():
        if line["file"] == record.get("file") and folder.name == f"{Path(line['out']).stem}-report":
            return manifest.whole(path.parent.parent, line)
    return record


def _manifest_records(path: Path) -> list[Record]:
    """The records in the manifests of a folder of results, given as the folder or as one of them."""
    folder = path if path.is_dir() else path.parent
    try:
        records = [manifest.whole(folder, line) for line in manifest.read_records(folder).values()]
    except OSError as error:
        raise RecordReadError(f"{path} cannot be read ({error.strerror}); check the path") from None
    if not records:
        raise RecordReadError(f"{folder} holds no manifest with records; give a folder of results of deqir restore")
    return records


def verify_record(record: Record, grey_levels: float = 1.0, run_again: Again | None = None) -> Verdict:
    """Restore the file of ``record`` again, with the solver that was chosen then, and compare the results.

    Files of the same bytes are identical. Others are equal where no value differs by more than ``grey_levels``, plus,
    for a parallel solver, its own tolerance; that needs the recorded result, unchanged. Nothing of the record's own
    files is written to. ``run_again(record, folder)`` makes the files of another command's record again in ``folder``.
    """
    file = one_line(str(record.get("file")))
    try:
        reason = _obstacle(record)
        if reason is not None:
            return Verdict(file, Outcome.NOT_REPEATED, reason)
        with TemporaryDirectory() as folder:
            if "command" not in record:
                return _compared(record, grey_levels, *_restored(record, Path(folder)))
            if run_again is None:
                return Verdict(file, Outcome.NOT_REPEATED, f"it is of another command, {record['command']['name']}")
            run_again(record, Path(folder))
            made = {Path(folder, name): Path(record["out_dir"], name) for name in record["outputs"]}
            return _compared(record, grey_levels, made, dict(zip(made, record["outputs"].values(), strict=True)))
    except DeqirError as error:
        return Verdict(file, Outcome.NOT_REPEATED, one_line(error))
    except NONSENSE as error:
        return Verdict(file, Outcome.NOT_REPEATED, f"the record is not complete or damaged ({one_line(error)})")


def _restored(record: Record, folder: Path) -> tuple[dict[Path, Path], dict[Path, str]]:
    """The restoration of ``record`` made again in ``folder``: which file compares with which, of which hash."""
    settings, recorded = record["job"], Path(record["out"])
    window = record.get("window", settings["options"].get("window"))
    options = {**settings["options"], "solver": record["solver"], "window": window}
    given = {name: settings[name] for name in ("seed", "noise", "simulate", "bits")}
    job = RestoreJob(_prior(json.dumps(settings["origin"])), settings["task_settings"], options, **given)
    again = folder / f"again{recorded.suffix}"
    job.run(Path(record["file"]), again, frame=record["frame"])
    return {again: recorded}, {again: record["out_sha256"]}


def _compared(record: Record, grey_levels: float, made: dict[Path, Path], hashes: dict[Path, str]) -> Verdict:
    """How the files that were made again compare with those recorded, which had these ``hashes``."""
    file, off = record["file"], 0.0
    differing = [(again, recorded) for again, recorded in made.items() if file_hash(again) != hashes[again]]
    if not differing:
        return Verdict(file, Outcome.IDENTICAL)
    for again, recorded in differing:
        if not recorded.is_file() or file_hash(recorded) != hashes[again]:
            return Verdict(file, Outcome.DIFFERENT, f"and {recorded} is gone or was changed, so not known by how much")
        distance = _distance(again, recorded)
        off = max(off, distance if isfinite(distance) else float("inf"))
    if not isfinite(off):
        return Verdict(file, Outcome.DIFFERENT, "in size or by values that are not finite")
    allowed = grey_levels + (0.0 if record.get("solver") in ("serial", "none") else record["tolerance"])
    return Verdict(file, Outcome.EQUAL if off <= allowed else Outcome.DIFFERENT, f"by {off:.2f} grey levels at most")


def _distance(again: Path, recorded: Path) -> float:
    """The largest difference of two pictures, or of the tensors in two files, the largest of which counts as white."""
    if recorded.suffix != ".safetensors":
        image, other = read_image(again), read_image(recorded)
        return 255 * float((image - other).abs().max()) if image.shape == other.shape else float("inf")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        new, old = load_file(again), load_file(recorded)
    except SafetensorError as error:
        raise RecordReadError(f"{recorded} is not a readable safetensors file ({one_line(error)})") from None
    if {name: value.shape for name, value in new.items()} != {name: value.shape for name, value in old.items()}:
        return float("inf")
    scales = {name: max(float(value.abs().max()), 1e-12) for name, value in old.items()}
    return max(255 * float((new[name] - old[name]).abs().max()) / scales[name] for name in old)


def _obstacle(record: Record) -> str | None:
    """Why ``record`` cannot be repeated, if that is known without trying."""
    if "error" in record:
        return "it failed when it was recorded"
    if record.get("stopped") == "interrupted" or record.get("command", {}).get("options", {}).get("resume"):
        return "it was interrupted, or went on from an earlier run"
    if file_hash(existing_file(record["file"])) != record["file_sha256"]:
        return "the file was changed since"
    for name, digest in _contents(record).items():
        if manifest.content_hash(Path(name)) != digest:
            return f"the file {name} was changed since"
    if "command" in record:
        return None
    if record["job"] is None:
        return "the record does not say where its prior came from"
    if record["warm_start"]:
        return "it began from the frame before it in a sequence"
    return None


def _contents(record: Record) -> dict[str, str]:
    """The hashes of all files beside the photo that decided the result, by path, as far as ``record`` knows them."""
    settings = record.get("settings")
    known = settings.get("contents") if isinstance(settings, dict) else record.get("contents")
    return known if isinstance(known, dict) else {}


@cache
def _prior(origin: str) -> Denoiser:
    """The prior that ``load_prior`` makes of its arguments, given as JSON."""
    return load_prior(**json.loads(origin))
