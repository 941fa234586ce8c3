"""Recorded restorations made again, to see whether they come out the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from deqir import manifest
from deqir.errors import DeqirError, RecordReadError
from deqir.images import read_image
from deqir.jobs import RestoreJob
from deqir.outputs import Record, file_hash
from deqir.priors import Denoiser, load_prior


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
    """The records in a file of ``deqir restore --stats``, or in the manifests of a folder of results.

    Raises RecordReadError where there are none.
    """
    if path.is_dir() or path.suffix == ".jsonl":
        return _manifest_records(path)
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordReadError(f"{path} is not readable JSON ({type(error).__name__}); give a file of --stats") from None
    if isinstance(records, dict) and "status" in records:
        records = [records]
    if not (isinstance(records, list) and records and all(isinstance(record, dict) for record in records)):
        raise RecordReadError(f"{path} holds no records of restorations; give a file of deqir restore --stats")
    return records


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


def verify_record(record: Record, grey_levels: float = 1.0) -> Verdict:
    """Restore the file of ``record`` again, with the solver that was chosen then, and compare the results.

    Files of the same bytes are identical. Others are equal where no value differs by more than ``grey_levels``, plus,
    for a parallel solver, its own tolerance; that needs the recorded result, unchanged. Nothing of the record's own
    files is written to.
    """
    file = str(record.get("file"))
    try:
        return _repeated(record, file, grey_levels)
    except (KeyError, TypeError, AttributeError) as error:
        return Verdict(file, Outcome.NOT_REPEATED, f"the record is not complete or damaged ({error})")
    except DeqirError as error:
        return Verdict(file, Outcome.NOT_REPEATED, str(error))


def _repeated(record: Record, file: str, grey_levels: float) -> Verdict:
    reason = _obstacle(record)
    if reason is not None:
        return Verdict(file, Outcome.NOT_REPEATED, reason)
    settings, recorded = record["job"], Path(record["out"])
    options = {**settings["options"], "solver": record["solver"]}
    given = {name: settings[name] for name in ("seed", "noise", "simulate", "bits")}
    prior = _prior(json.dumps(settings["origin"]))
    job = RestoreJob(prior, settings["task_settings"], options, **given)
    with TemporaryDirectory() as folder:
        again = Path(folder, f"again{recorded.suffix}")
        job.run(Path(file), again, frame=record["frame"])
        if file_hash(again) == record["out_sha256"]:
            return Verdict(file, Outcome.IDENTICAL)
        if not recorded.is_file() or file_hash(recorded) != record["out_sha256"]:
            return Verdict(file, Outcome.DIFFERENT, f"and {recorded} is gone or was changed, so not known by how much")
        off = 255 * float((read_image(again) - read_image(recorded)).abs().max())
    allowed = grey_levels + (0.0 if record["solver"] == "serial" else record["tolerance"])
    outcome = Outcome.EQUAL if off <= allowed else Outcome.DIFFERENT
    return Verdict(file, outcome, f"by {off:.2f} grey levels at most")


def _obstacle(record: Record) -> str | None:
    """Why ``record`` cannot be repeated, if that is known without trying."""
    if "error" in record:
        return "it failed when it was recorded"
    if record["job"] is None:
        return "the record does not say where its prior came from"
    if record["warm_start"]:
        return "it began from the frame before it in a sequence"
    if file_hash(Path(record["file"])) != record["file_sha256"]:
        return "the file was changed since"
    return None


@cache
def _prior(origin: str) -> Denoiser:
    """The prior that ``load_prior`` makes of its arguments, given as JSON."""
    return load_prior(**json.loads(origin))
