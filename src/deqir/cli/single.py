"""Files one after another: each with a progress line of its own, records and a count at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deqir.cli.console import FAILURE, err
from deqir.cli.manner import Manner
from deqir.cli.termination import interrupts_wait

if TYPE_CHECKING:
    from deqir.items import Item
    from deqir.jobs import RestoreJob, WarmStart
    from deqir.outputs import Record


@dataclass(frozen=True)
class SingleRun:
    """Where results and records go, and how their files are worked through."""

    folder: Path
    suffix: str
    stats: Path | None
    sequence: bool
    manner: Manner

    def run(self, job: RestoreJob, files: list[Path], failed: list[Record]) -> None:
        """Restore ``files``, ``failed`` being records of what is none. Exits with 1 where something failed."""
        from deqir.items import in_order, items
        from deqir.jobs import WarmStart
        from deqir.outputs import make_folder, refuse_existing

        if self.stats is not None:
            refuse_existing(self.stats, job.overwrite)
            make_folder(self.stats.parent)
        if not self.manner.dry_run:
            make_folder(self.folder)
        records = list(failed)
        listed = items(in_order(files) if self.sequence else files, self.folder, self.suffix)
        total = len(listed) + len(records)
        warm = WarmStart() if self.sequence else None
        try:
            for item in listed:
                records.append(self._restored(job, item, warm))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                err.print(f"deqir: interrupted after {len(records)} of {total}; what is finished is kept")
            self._write(records)
            raise
        with interrupts_wait():
            self._conclude(records)

    def _restored(self, job: RestoreJob, item: Item, warm: WarmStart | None) -> Record:
        """The record of one item; a failure becomes a record with its sentence, which is said."""
        from deqir.records import failure

        try:
            return self.manner.restore(job, item, warm)
        except Exception as error:
            record = failure(item.file, error)
            self.manner.say(record, item.target)
            return record

    def _conclude(self, records: list[Record]) -> None:
        """Say how the run went and write its records, the one even where the other is impossible."""
        failures = sum("error" in record for record in records)
        if len(records) > 1 and self.manner.counts:
            done = "could be restored" if self.manner.dry_run else "restored"
            err.print(f"{len(records) - failures} of {len(records)} {done}, {failures} failed")
        self._write(records)
        if failures:
            raise typer.Exit(FAILURE)

    def _write(self, records: list[Record]) -> None:
        from deqir.outputs import write_records

        if self.stats is not None and records:
            with interrupts_wait():
                write_records(self.stats, records)
