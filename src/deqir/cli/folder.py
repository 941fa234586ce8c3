"""Whole folders, and several processes: overall progress, going on after an interrupt, what is said at the end."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deqir.cli.console import FAILURE, err, folder_progress
from deqir.cli.manner import Manner, planned, reporting
from deqir.cli.termination import interrupts_wait
from deqir.errors import DeqirError, OptionError

if TYPE_CHECKING:
    from deqir.distributed import Rank
    from deqir.jobs import RestoreJob
    from deqir.manifest import Manifest
    from deqir.outputs import Record
    from deqir.pipeline import Pipeline

SHARDS = ("files", "timesteps")
SERIAL_REASON = "auto: files fill the batches"
SHARDED_REASON = "auto: timesteps are shared"


@dataclass(frozen=True)
class FolderRun:
    """How a folder is restored: into ``folder`` with ``suffix``, by this ``rank`` of all processes.

    ``settings`` decide the results and must be the same when the run goes on; ``together`` bounds the images restored
    at once (None: chosen); ``timesteps``: the processes share each image's timesteps instead of the files; ``stats``
    is the file of all records; ``manner``: what is written and said beside.
    """

    folder: Path
    suffix: str
    settings: dict[str, Any]
    rank: Rank
    together: int | None = None
    timesteps: bool = False
    stats: Path | None = None
    manner: Manner = field(default_factory=Manner)

    @property
    def speaks(self) -> bool:
        """Whether this process reports and writes: not where it works on the images of the first one."""
        return self.rank.index == 0 or not self.timesteps

    def pipeline(self, job: RestoreJob) -> Pipeline:
        """The stream that restores this process's share of the files.

        ``auto`` measures no solver here, for all processes and all runs have to choose the same.
        """
        from deqir.pipeline import Pipeline

        job, about = self._chosen(job)
        manifest = self._manifest(job, self.speaks)
        together = 1 if self.timesteps else self.together
        overlays = self.manner.report if self.speaks else None
        watch = None if overlays is None else partial(reporting, overlays)
        return Pipeline(self._sharded(job), manifest, self.suffix, together, self._share, about, watch)

    def run(self, job: RestoreJob, files: list[Path], failed: list[Record]) -> None:
        """Restore this process's share of ``files``, ``failed`` being records of what is none. Exits with 1 for them.

        A dry run says what would be done, and does nothing.
        """
        from deqir.outputs import make_folder

        if self.manner.dry_run:
            return self._plan(job, files, failed)
        if self.stats is not None:
            make_folder(self.stats.parent)
        make_folder(self.folder)
        self._run(job, files, failed)

    def _plan(self, job: RestoreJob, files: list[Path], failed: list[Record]) -> None:
        """Say what would be done. Exits with 1 where an image could not be restored."""
        from deqir.items import items
        from deqir.records import failure

        job, _ = self._chosen(job)
        manifest = self._manifest(job, False) if self.folder.exists() else None
        done, failures = 0, len(failed)
        listed = items(files, self.folder, self.suffix)
        for item in listed:
            try:
                if manifest is not None and manifest.is_done(item.target, item.file):
                    done += 1
                    continue
                if manifest is not None:
                    manifest.refuse_foreign(item.target, item.file)
                record = planned(replace(job, overwrite=True), item)
            except Exception as error:
                record = failure(item.file, error)
                failures += 1
            self.manner.say(record, item.target)
        if self.manner.counts:
            able = len(listed) + len(failed) - failures - done
            err.print(f"{able} would be restored, {failures} could not be, {done} are done")
        if failures:
            raise typer.Exit(FAILURE)

    @property
    def _share(self) -> tuple[int, int]:
        """Which of how many shares of the files is this process's."""
        return (0, 1) if self.timesteps else (self.rank.index, self.rank.count)

    def _chosen(self, job: RestoreJob) -> tuple[RestoreJob, Record]:
        """``job`` with its solver chosen, and why."""
        if job.options["solver"] != "auto":
            return job, {}
        solver, reason = ("preconditioned", SHARDED_REASON) if self.timesteps else ("serial", SERIAL_REASON)
        return replace(job, options={**job.options, "solver": solver}), {"solver_reason": reason}

    def _manifest(self, job: RestoreJob, writable: bool) -> Manifest:
        from deqir.manifest import open_manifest

        settings = {**self.settings, "solver": job.options["solver"]}
        return open_manifest(self.folder, settings, job.overwrite, *self._share, writable)

    def _run(self, job: RestoreJob, files: list[Path], failed: list[Record]) -> None:
        """Restore this process's share; an interrupt ends it with what is finished kept, and the next run goes on."""
        from deqir.distributed import process_group, total
        from deqir.outputs import refuse_existing

        with process_group(self.rank, job.options["device"]):
            pipeline = self.pipeline(job)
            if self.stats is not None and not pipeline.manifest.finished:
                refuse_existing(self.stats, job.overwrite)
            total(self.rank, [0])  # every process has seen what is done before any does more
            counts = [0, len(failed) if self.rank.index == 0 else 0, 0]
            try:
                self._consume(pipeline, files, counts)
                counts = counts if self.timesteps else total(self.rank, counts)
                with interrupts_wait():
                    self._say(counts)
                    self._write(files, failed)
            except BaseException:
                with suppress(DeqirError):  # the first error tells more
                    if self._records(files):  # else the next run begins anew, and must not find the file
                        self._write(files, failed)
                raise
        if counts[1]:
            raise typer.Exit(FAILURE)

    def _say(self, counts: list[int]) -> None:
        """Say how many images were restored, failed, and were done before."""
        restored, failures, before = counts
        if self.rank.index == 0 and self.manner.counts:
            known = f", {before} were done before" if before else ""
            err.print(f"{restored} of {restored + failures + before} restored, {failures} failed{known}")

    def _write(self, files: list[Path], failed: list[Record]) -> None:
        """Write the records, if they are asked for."""
        from deqir.outputs import write_records

        if self.stats is not None and self.rank.index == 0:
            with interrupts_wait():
                write_records(self.stats, [*self._records(files), *failed])

    def _sharded(self, job: RestoreJob) -> RestoreJob:
        """``job`` with its network calls shared by all processes, where they share timesteps."""
        from deqir.batching import checked_max_batch
        from deqir.distributed import ShardedDenoiser

        if not self.timesteps or self.rank.count == 1:
            return job
        options = job.options
        prior = ShardedDenoiser(job.prior, checked_max_batch(options["max_batch"]))
        sweep = options["steps"] * options.get("travel_repeat", 1)
        return replace(job, prior=prior, options={**options, "max_batch": sweep})

    def _consume(self, pipeline: Pipeline, files: list[Path], counts: list[int]) -> None:
        """Run the stream, count what is restored, failed and done before, and say how each image went."""
        mine = sum(len(block) for block in pipeline.blocks(files))
        shown = self.speaks and self.manner.counts
        title = f"process {self.rank.index}" if self.rank.count > 1 and not self.timesteps else "files"
        try:
            with folder_progress(title, mine, shown) as advance, closing(pipeline.run(files)) as outcomes:
                for outcome in outcomes:
                    record = outcome.record
                    counts[2 if record is None else 1 if "error" in record else 0] += 1
                    if record is not None and self.speaks:
                        self.manner.say(record, outcome.item.target)
                    advance(1 / outcome.item.frames)
        except DeqirError:
            if shown:
                err.print(f"ended after {sum(counts)} of {mine}: {counts[0]} restored, {counts[1]} failed")
            raise
        except (KeyboardInterrupt, SystemExit):
            if self.speaks:
                err.print(
                    f"deqir: interrupted after {sum(counts)} of {mine}; what is finished is kept, "
                    "start the same command again and it goes on"
                )
            raise

    def _records(self, files: list[Path]) -> list[Record]:
        """The records of ``files`` in all manifests of the folder, those of earlier runs among them."""
        from deqir.manifest import read_records, whole

        order = {str(file): number for number, file in enumerate(files)}
        found = read_records(self.folder).values()
        known = [whole(self.folder, record) for record in found if record["file"] in order]
        return sorted(known, key=lambda record: (order[record["file"]], record["out"]))


def checked_shard(shard: str, sequence: bool) -> tuple[Rank, bool]:
    """This process's rank, and whether timesteps are shared.

    Raises OptionError for an unknown ``shard`` or a sequence in several processes.
    """
    from deqir.distributed import Rank

    rank = Rank.launched()
    if shard not in SHARDS:
        raise OptionError(f"shard is {shard!r}; choose one of {', '.join(SHARDS)}")
    if sequence and rank.count > 1:
        raise OptionError("a sequence is restored frame after frame by one process; start it without torchrun")
    return rank, shard == "timesteps"
