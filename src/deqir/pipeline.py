"""A folder restored as a stream: files are read, grouped, restored and written, all at the same time."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from deqir.batching import default_max_batch
from deqir.errors import DeqirError, RankError
from deqir.images import encode_image
from deqir.items import Item, frames, targets
from deqir.jobs import Finished, RestoreJob, write_mask
from deqir.manifest import Manifest, identity
from deqir.outputs import Record, file_hash, refuse_existing, refuse_huge
from deqir.problems import Problem
from deqir.records import failure
from deqir.restoration import resolve_device
from deqir.results import Progress

BLOCKS = 32
"""A folder is cut into at least as many blocks, where it has the files, so that processes get equal shares."""

LARGEST_BLOCK = 64
"""The files of a block at most; batches are made within one."""

WRITES_AHEAD = 2
"""Batches that may wait to be written."""

Thing = TypeVar("Thing")
Watch = Callable[[Item], tuple[Callable[[Progress], None], Callable[[Finished], None]]]


@dataclass(frozen=True)
class Loaded:
    """An item as it was read: its problem, or why there is none; ``done`` where its result is there already."""

    item: Item
    done: bool = False
    problem: Problem | None = None
    source: Any = None
    error: Exception | None = None


@dataclass(frozen=True, eq=False)
class Restored:
    """What was made of a loaded item: record and image, the record of a failure alone, or nothing where it was done."""

    loaded: Loaded
    record: Record | None = None
    image: Tensor | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of an item; no ``record`` where it was done before."""

    item: Item
    record: Record | None = None


@dataclass(frozen=True)
class Pipeline:
    """Restores files into ``manifest``'s folder; the results have ``suffix``.

    Files are taken in blocks of neighbours, and within a block those of one task, size and noise level are restored
    together: at most ``together`` (None: by their number and size). ``share`` (rank, ranks): every ranks-th block is
    this process's. ``about`` is added to every record. Batches depend on the list of files alone, not on what is done
    already or on the processes, so an interrupted run ends with the bytes of an undisturbed one. With ``watch`` every
    image is restored alone: it gives for an item what hears of its progress and what sees all that came out.
    """

    job: RestoreJob
    manifest: Manifest
    suffix: str = ".png"
    together: int | None = None
    share: tuple[int, int] = (0, 1)
    about: Mapping[str, Any] = field(default_factory=dict)
    watch: Watch | None = None

    def blocks(self, files: Sequence[Path]) -> list[list[tuple[Path, Path]]]:
        """This process's blocks of ``files`` and the targets of each."""
        rank, ranks = self.share
        size = self.together or min(LARGEST_BLOCK, max(1, ceil(len(files) / BLOCKS)))
        pairs = list(zip(files, targets(list(files), self.manifest.path.parent, self.suffix), strict=True))
        return [pairs[start : start + size] for start in range(0, len(pairs), size)][rank::ranks]

    def run(self, files: Sequence[Path]) -> Generator[Outcome, None, None]:
        """Restore this process's share of ``files``; one outcome an image, in the order in which they are finished.

        A file that fails is an outcome with an error; whatever ends the iteration, writes that have begun are finished.
        """
        with ThreadPoolExecutor(1, "deqir-write") as writer, ThreadPoolExecutor(1, "deqir-read") as reader:
            writes: deque[Future[list[Outcome]]] = deque()
            for batch in _ahead(self._batches(files), reader):
                writes.append(writer.submit(self._write, self._restore(batch)))
                while writes and (len(writes) > WRITES_AHEAD or writes[0].done()):
                    yield from writes.popleft().result()
            while writes:
                yield from writes.popleft().result()

    def _batches(self, files: Sequence[Path]) -> Iterator[list[Loaded]]:
        for block in self.blocks(files):
            items = [item for file, target in block for item in frames(file, target)]
            done = [self._is_done(item) for item in items]
            if all(done):
                yield [Loaded(item, True) for item in items]
            else:
                yield from self._groups(items, done)

    def _groups(self, items: list[Item], done: list[bool]) -> Iterator[list[Loaded]]:
        """The items of a block, read; what is done is restored again where it shares a batch with what is not."""
        groups: dict[str, list[Loaded]] = {}
        for item, is_done in zip(items, done, strict=True):
            loaded = self._load(item, is_done)
            if loaded.problem is None:
                yield [loaded]
                continue
            key = _key(loaded.problem)
            group = groups.setdefault(key, [])
            group.append(loaded)
            if len(group) == self._limit(loaded.problem):
                yield groups.pop(key)
        yield from groups.values()

    def _is_done(self, item: Item) -> bool:
        try:
            return self.manifest.is_done(item.target, item.file)
        except DeqirError:
            return False

    def _load(self, item: Item, done: bool) -> Loaded:
        try:
            refuse_existing(item.target, True, item.file)
            if not done:
                self.manifest.refuse_foreign(item.target, item.file)
            source = {**identity(item.file), "sha256": file_hash(item.file)}
            problem = self.job.problem(item.file, item.frame)
            refuse_huge(problem.shape, item.file)
        except Exception as error:
            return Loaded(item, done, error=error)
        return Loaded(item, done, problem, source)

    def _limit(self, problem: Problem) -> int:
        """How many images of this size are restored together."""
        if self.watch is not None:
            return 1
        like = torch.empty(1, device=resolve_device(self.job.options.get("device"))).expand(1, *problem.shape)
        return min(default_max_batch(like), self.together or LARGEST_BLOCK)

    def _restore(self, batch: list[Loaded]) -> list[Restored]:
        """What becomes of every item of ``batch``; each is tried alone where together fails."""
        if all(loaded.done for loaded in batch):
            return [Restored(loaded) for loaded in batch]
        problems = [loaded.problem for loaded in batch if loaded.problem is not None]
        if len(problems) < len(batch):
            return [_failed(loaded, loaded.error) for loaded in batch]
        if problems[0].leave_alone:
            pairs = zip(batch, problems, strict=True)
            return [Restored(one, self.job.untouched(one.item.file, problem), problem.y[0]) for one, problem in pairs]
        progress, keep = (None, None) if self.watch is None else self.watch(batch[0].item)
        try:
            restorer, result = self.job.restored(problems, progress)
        except RankError:
            raise
        except Exception as error:
            alone = len(batch) == 1
            return [_failed(batch[0], error)] if alone else [self._restore([loaded])[0] for loaded in batch]
        images = result.image.cpu()
        made = []
        for index, (loaded, problem) in enumerate(zip(batch, problems, strict=True)):
            try:
                record = self.job.record(loaded.item.file, problem, restorer, result, index)
                if keep is not None:
                    keep(Finished(problem, restorer, result, record))
                made.append(Restored(loaded, {**record, "batch": len(batch)}, images[index]))
            except DeqirError as error:
                made.append(_failed(loaded, error))
        return made

    def _write(self, made: list[Restored]) -> list[Outcome]:
        return [Outcome(one.loaded.item, None if one.loaded.done else self._written(one)) for one in made]

    def _written(self, made: Restored) -> Record:
        """The line of the manifest for an item, once its result is written."""
        item, problem, record = made.loaded.item, made.loaded.problem, made.record or {}
        if made.image is None or problem is None:
            return self.manifest.note_failure(item.target, record)
        try:
            depth = self.job.depth(problem, item.target)
            data = encode_image(item.target, made.image, depth, attachments=problem.attachments)
            about = {"frame": item.frame, "warm_start": False, **self.about, **write_mask(item.target, problem)}
            about |= {"depth": depth, "job": self.job.settings()}
            return self.manifest.publish(item.target, data, made.loaded.source, {**record, **about})
        except Exception as error:
            return self.manifest.note_failure(item.target, failure(item.file, error))


def _failed(loaded: Loaded, error: Exception | None) -> Restored:
    return Restored(loaded, failure(loaded.item.file, error or DeqirError("it could not be read")))


def _key(problem: Problem) -> str:
    """Problems with the same key can be restored together."""
    mask = None if problem.mask is None else sha256(problem.mask.numpy().tobytes()).hexdigest()
    shapes = [list(problem.y.shape), list(problem.shape)]
    return json.dumps([problem.task.settings(), *shapes, problem.noise, mask, problem.leave_alone])


def _ahead(things: Iterator[Thing], reader: ThreadPoolExecutor) -> Iterator[Thing]:
    """``things``, the next one being made in the thread of ``reader`` while the last one is used."""
    following = reader.submit(next, things, None)
    while (thing := following.result()) is not None:
        following = reader.submit(next, things, None)
        yield thing
