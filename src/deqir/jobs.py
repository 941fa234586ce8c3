"""Restoring and degrading files: from a path to a written result and its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from deqir.images import DEEP_SUFFIXES, frame_count, read_image, write_image
from deqir.manifest import content_hashes
from deqir.observations import Observation, write_observation
from deqir.old_photo import TRAVEL
from deqir.operators import Denoising
from deqir.outputs import Record, file_hash, mask_path, refuse_existing, refuse_huge
from deqir.priors import Denoiser
from deqir.problems import Problem, ProblemReader, checked_noise, noisy, truth_shape
from deqir.records import restored_record, untouched
from deqir.restoration import Restorer
from deqir.results import Progress, Restoration
from deqir.tasks import Task


@dataclass
class WarmStart:
    """The trajectory of the frame before in a sequence, from which the next one starts."""

    trajectory: Tensor | None = None

    def at(self, size: tuple[int, int]) -> Tensor | None:
        """The trajectory, if it is one of images of ``size`` (H, W)."""
        known = self.trajectory
        return known if known is not None and tuple(known.shape[-2:]) == size else None


@dataclass(frozen=True, eq=False)
class Finished:
    """One finished restoration: what was asked, who restored it, what came out, and its record."""

    problem: Problem
    restorer: Restorer
    result: Restoration
    record: Record


@dataclass(frozen=True)
class RestoreJob:
    """How every file of a run is restored.

    ``task_settings`` holds the task settings that were asked for (``name`` among them, unless files bring it with
    them); ``origin`` the arguments with which ``load_prior`` made the prior (None: not known, and the records cannot be
    repeated); ``options`` the arguments of ``Restorer``; ``noise`` the noise level in units of 0..1 (None: what the
    file says, else 0; ``"auto"``: estimated). With ``simulate`` a file is the truth: it is degraded first. Results have
    ``bits`` per channel: 8, 16, or ``"auto"``, as many as the file where their format holds them.
    """

    prior: Denoiser
    task_settings: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    noise: float | Literal["auto"] | None = None
    simulate: bool = False
    overwrite: bool = False
    bits: int | Literal["auto"] = 8
    origin: Mapping[str, Any] | None = None

    def settings(self) -> Record | None:
        """What makes this job again, as JSON can hold it; None where the origin of the prior is not known."""
        if self.origin is None:
            return None
        chosen = ("seed", "noise", "simulate", "bits")
        mappings = {name: dict(getattr(self, name)) for name in ("origin", "task_settings", "options")}
        return {**mappings, **{name: getattr(self, name) for name in chosen}}

    def run(
        self,
        file: Path,
        target: Path,
        progress: Callable[[Progress], None] | None = None,
        frame: int = 0,
        warm: WarmStart | None = None,
        keep: Callable[[Finished], None] | None = None,
    ) -> Record:
        """Restore a frame of ``file`` into the image file ``target`` and return its record. Raises DeqirError.

        ``warm`` passes the trajectory on from one frame of a sequence to the next; ``keep`` sees all that came out.
        """
        refuse_existing(target, self.overwrite, file)
        problem = self.problem(file, frame)
        refuse_huge(problem.shape, file)
        if problem.leave_alone:
            write_image(target, problem.y[0], self.depth(problem, target), attachments=problem.attachments)
            record = self.untouched(file, problem) | {"frame": frame, "warm_start": False}
            return record | self._origin(file, problem, target)
        if problem.mask is not None:
            refuse_existing(mask_path(target), self.overwrite, file)
        start = None if warm is None else warm.at(problem.shape[1:])
        restorer, result = self.restored([problem], progress, start, keep_trajectory=warm is not None)
        record = self.record(file, problem, restorer, result)
        record |= {"frame": frame, "warm_start": start is not None and result.stats.solver != "serial"}
        write_image(target, result.image[0], self.depth(problem, target), attachments=problem.attachments)
        record |= write_mask(target, problem)
        record |= self._origin(file, problem, target)
        if warm is not None:
            warm.trajectory = result.trajectory
        if keep is not None:
            keep(Finished(problem, restorer, result, record))
        return record

    def restored(
        self,
        problems: Sequence[Problem],
        progress: Callable[[Progress], None] | None = None,
        start: Tensor | None = None,
        keep_trajectory: bool = False,
    ) -> tuple[Restorer, Restoration]:
        """Restore problems of one task, shape and noise level together, each with the seed of the job.

        ``progress`` and ``start`` as in ``Restorer.restore``.
        """
        restorer = replace(self.restorer(problems[0]), keep_trajectory=keep_trajectory)
        y = torch.cat([problem.y for problem in problems])
        return restorer, restorer.restore(y, [self.seed] * len(y), progress, start)

    def restorer(self, problem: Problem) -> Restorer:
        """What restores ``problem``; for old photos it travels in time, unless the options say otherwise."""
        travels = problem.task.name == "old-photo" and self.options.get("steps", 100) > TRAVEL["travel_length"]
        options = {**(TRAVEL if travels else {}), **self.options}
        return Restorer(self.prior, problem.operator, noise=problem.noise, **options)

    def problem(self, file: Path, frame: int = 0) -> Problem:
        """Read a frame of ``file`` as truth or observation. Raises DeqirError."""
        return ProblemReader(self.task_settings, self.noise, self.simulate, self.seed).read(file, frame)

    def record(self, file: Path, problem: Problem, restorer: Restorer, result: Restoration, index: int = 0) -> Record:
        """What is kept of image ``index`` of a restored batch; raises NonFiniteError where it is not finite."""
        return {**restored_record(file, problem, restorer, result, index), **self._chosen}

    def untouched(self, file: Path, problem: Problem) -> Record:
        """What is kept of a photo that is best left alone."""
        restorer = Restorer(self.prior, Denoising(), **{**self.options, "solver": "auto"})  # for its settings alone
        return {**untouched(file, problem, restorer), **self._chosen}

    def depth(self, problem: Problem, target: Path) -> int:
        """The bits per channel of the result ``target`` of ``problem``."""
        if self.bits != "auto":
            return self.bits
        return problem.attachments.bits if target.suffix.lower() in DEEP_SUFFIXES else 8

    @property
    def _chosen(self) -> Record:
        return {"seed": self.seed, "simulate": self.simulate}

    def _origin(self, file: Path, problem: Problem, target: Path) -> Record:
        """What it takes to make ``target`` again and to compare it."""
        hashes = {"file_sha256": file_hash(file), "out": str(target), "out_sha256": file_hash(target)}
        about = {"depth": self.depth(problem, target), "job": self.settings(), "contents": self._contents}
        return {**about, **hashes}

    @cached_property
    def _contents(self) -> dict[str, str]:
        """The hashes of the files that the prior and the task name, by path."""
        return content_hashes([(self.origin or {}).get("source"), *self.task_settings.values()])


def write_mask(target: Path, problem: Problem) -> Record:
    """Write the mask that was detected, where one was, beside ``target``; its name for the record."""
    if problem.mask is None:
        return {}
    write_image(mask_path(target), problem.mask[0])
    return {"mask_file": str(mask_path(target))}


def degrade(file: Path, target: Path, task: Task, noise: float = 0.0, seed: int = 0, overwrite: bool = False) -> Record:
    """Write the observation that ``task`` and Gaussian ``noise`` make of the photo ``file``.

    It carries what restoring it needs. Of several frames or pages the first is taken; the record counts them.
    """
    checked_noise(task, noise)
    refuse_existing(target, overwrite, file)
    truth = read_image(file)[None]
    shape = truth_shape(task, truth, file)
    value = noisy(task.operator(shape).forward(truth), noise, seed)[0]
    metadata = {"task": task.settings(), "image_shape": list(shape), "noise": noise}
    write_observation(target, Observation(value, metadata))
    about = {"file": str(file), "out": str(target), "task": task.settings()}
    return {**about, "shape": list(value.shape), "frames": frame_count(file)}
