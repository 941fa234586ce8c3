"""How one item is restored from the command line: planned or done, with a report or without, aloud or in silence."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from deqir.cli.console import out, progress_line, restored_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from deqir.items import Item
    from deqir.jobs import Finished, Record, RestoreJob, WarmStart
    from deqir.report import Overlays
    from deqir.results import Progress


@dataclass(frozen=True)
class Manner:
    """What is written beside the results and what is said.

    ``report``: what a report shows over its pictures, None: no report. ``dry_run`` writes nothing, ``as_json`` says
    records.
    """

    report: Overlays | None
    dry_run: bool
    quiet: bool
    as_json: bool

    def restore(self, job: RestoreJob, item: Item, warm: WarmStart | None) -> Record:
        """Restore ``item``, or plan to, say how it went and return its record. Raises DeqirError."""
        if self.dry_run:
            record = _planned(job, item)
        else:
            with nullcontext(_silent) if self.quiet or self.as_json else progress_line(item.file.name) as line:
                how = _restored if self.report is None else partial(_reported, self.report)
                record = how(job, item, warm, line)
        if self.as_json:
            out.print(json.dumps(record, allow_nan=False))
        elif not self.quiet:
            out.print(_plan(record) if self.dry_run else restored_line(record, item.target))
        return record

    @property
    def special(self) -> bool:
        """Whether items are worked through one by one even in a folder, without a manifest."""
        return self.report is not None or self.dry_run or self.quiet or self.as_json

    @property
    def counts(self) -> bool:
        """Whether the end of a run of several items is told."""
        return not self.quiet and not self.as_json


def _silent(progress: Progress) -> None:
    """No progress line."""


def _restored(job: RestoreJob, item: Item, warm: WarmStart | None, line: Callable[[Progress], None]) -> Record:
    return job.run(item.file, item.target, line, item.frame, warm)


def _reported(
    overlays: Overlays, job: RestoreJob, item: Item, warm: WarmStart | None, line: Callable[[Progress], None]
) -> Record:
    """Restore one item and write its report beside the result."""
    from deqir.jobs import make_folder, refuse_existing
    from deqir.report import Recorder, report_folder, write_report, write_run

    folder, recorder = report_folder(item.target), Recorder(overlays)
    refuse_existing(folder, job.overwrite)

    def watch(progress: Progress) -> None:
        recorder(progress)
        line(progress)

    def keep(finished: Finished) -> None:
        run = recorder.record(finished)
        make_folder(folder)
        write_run(folder, run)
        write_report(folder, run)

    return job.run(item.file, item.target, watch, item.frame, warm, keep)


def _planned(job: RestoreJob, item: Item) -> Record:
    """What would be done with one item, every check made that needs no network."""
    from deqir.jobs import refuse_existing, refuse_huge

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
