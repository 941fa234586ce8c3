"""How one item is restored from the command line: planned or done, with a report or without, aloud or in silence."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from deqir.cli.console import err, out, progress_line, restored_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deqir.items import Item
    from deqir.jobs import Finished, RestoreJob, WarmStart
    from deqir.outputs import Record
    from deqir.report import Overlays
    from deqir.results import Progress


@dataclass(frozen=True)
class Manner:
    """What is written beside the results and what is said.

    ``report``: what a report shows over its pictures, None: no report. ``dry_run`` writes nothing, ``as_json`` says
    records.
    """

    report: Overlays | None = None
    dry_run: bool = False
    quiet: bool = False
    as_json: bool = False

    def restore(self, job: RestoreJob, item: Item, warm: WarmStart | None) -> Record:
        """Restore ``item``, or plan to, say how it went and return its record. Raises DeqirError."""
        if self.dry_run:
            record = planned(job, item)
        else:
            with progress_line(item.file.name) if self.counts else nullcontext(_silent) as line:
                how = _restored if self.report is None else partial(_reported, self.report)
                record = how(job, item, warm, line)
        self.say(record, item.target)
        return record

    def say(self, record: Record, target: Path) -> None:
        """Say how one image went: failures on standard error, in every manner."""
        if "error" in record:
            err.print(f"deqir: {record['error']}")
        elif self.as_json:
            out.print(json.dumps(record, allow_nan=False))
        elif not self.quiet:
            out.print(_plan(record) if self.dry_run else restored_line(record, target))

    @property
    def counts(self) -> bool:
        """Whether progress, and the end of a run of several items, is shown."""
        return not self.quiet and not self.as_json


def _silent(progress: Progress) -> None:
    """No progress line."""


def _restored(job: RestoreJob, item: Item, warm: WarmStart | None, line: Callable[[Progress], None]) -> Record:
    return job.run(item.file, item.target, line, item.frame, warm)


def _reported(
    overlays: Overlays, job: RestoreJob, item: Item, warm: WarmStart | None, line: Callable[[Progress], None]
) -> Record:
    """Restore one item and write its report beside the result."""
    from deqir.outputs import refuse_existing
    from deqir.report import report_folder

    refuse_existing(report_folder(item.target), job.overwrite)
    recorder, keep = reporting(overlays, item)

    def watch(progress: Progress) -> None:
        recorder(progress)
        line(progress)

    return job.run(item.file, item.target, watch, item.frame, warm, keep)


def reporting(overlays: Overlays, item: Item) -> tuple[Callable[[Progress], None], Callable[[Finished], None]]:
    """What listens to the restoration of ``item``, and what writes its report, ``overlays`` included, in the end."""
    from deqir.outputs import make_folder
    from deqir.report import Recorder, report_folder, write_report, write_run

    folder, recorder = report_folder(item.target), Recorder(overlays)

    def keep(finished: Finished) -> None:
        run = recorder.record(finished)
        make_folder(folder)
        write_run(folder, run)
        write_report(folder, run)

    return recorder, keep


def planned(job: RestoreJob, item: Item) -> Record:
    """What would be done with one item, every check made that needs no network."""
    from deqir.outputs import refuse_existing, refuse_huge

    refuse_existing(item.target, job.overwrite, item.file)
    problem = job.problem(item.file, item.frame)
    refuse_huge(problem.shape, item.file)
    if not problem.leave_alone:
        _ = problem.operator
    task = {"task": problem.task.name, "task_settings": problem.task.settings()}
    files = {"file": str(item.file), "frame": item.frame, "out": str(item.target)}
    return {**files, **task, "shape": list(problem.shape), "noise": problem.noise}


def _plan(record: Record) -> str:
    channels, height, width = record["shape"]
    kind = "grey" if channels == 1 else "colour"
    return f"{record['file']} -> {record['out']}: would restore {record['task']}, {width} x {height} pixels, {kind}"
