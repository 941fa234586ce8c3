"""Restoring and degrading files: from a path to a written result and its record."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from deqir.appraisal import appraise
from deqir.consistency import describe_rule
from deqir.errors import DeqirError, ImageReadError, NonFiniteError, OptionError, OutputError
from deqir.images import (
    MAX_PIXELS,
    Attachments,
    JpegQuantization,
    atomic_write,
    read_image,
    read_photo,
    read_quantization,
    write_image,
)
from deqir.metrics import psnr, ssim
from deqir.noise import generator
from deqir.noise_estimation import estimate_noise
from deqir.observations import Observation, read_observation, write_observation
from deqir.old_photo import TRAVEL
from deqir.operators import Inpainting, LinearOperator
from deqir.priors import Denoiser
from deqir.restoration import Restorer, resolve_device
from deqir.results import Progress, Restoration
from deqir.solvers import Status
from deqir.tasks import Task
from deqir.version import __version__

Record = dict[str, Any]
APPRAISED = ("old-photo", "auto")
"""Tasks whose problem is found by looking at the photo."""


@dataclass(frozen=True)
class Problem:
    """One file's restoration problem: ``y`` (1, ...), its task, the image's (C, H, W), and the truth where known.

    ``noise_estimated``: whether the noise level was. ``attachments``: what the file holds beside its colours. ``mask``
    (1, 1, h, w): the damage that was detected in it, ``findings``: what else was found, for the record;
    ``leave_alone``: whether nothing is to be restored.
    """

    task: Task
    y: Tensor
    shape: tuple[int, int, int]
    truth: Tensor | None = None
    noise: float = 0.0
    noise_estimated: bool = False
    attachments: Attachments = field(default_factory=Attachments)
    mask: Tensor | None = None
    findings: Mapping[str, Any] = field(default_factory=dict)
    leave_alone: bool = False

    @property
    def operator(self) -> LinearOperator:
        """The forward operator, of the task and the mask that was detected."""
        return self.task.operator(self.shape, self.mask)


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
    ``bits`` per channel, 8 or 16.
    """

    prior: Denoiser
    task_settings: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    noise: float | Literal["auto"] | None = None
    simulate: bool = False
    overwrite: bool = False
    bits: int = 8
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
            write_image(target, problem.y[0], self.bits, attachments=problem.attachments)
            return untouched(file, problem) | {"frame": frame, "warm_start": False} | self._origin(file, target)
        if problem.mask is not None:
            refuse_existing(mask_path(target), self.overwrite, file)
        start = None if warm is None else warm.at(problem.shape[1:])
        restorer, result = self.restored([problem], progress, start, keep_trajectory=warm is not None)
        record = self.record(file, problem, restorer, result)
        record |= {"frame": frame, "warm_start": start is not None and result.stats.solver != "serial"}
        write_image(target, result.image[0], self.bits, attachments=problem.attachments)
        record |= write_mask(target, problem)
        record |= self._origin(file, target)
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
        first = problems[0]
        travels = first.task.name == "old-photo" and self.options.get("steps", 100) > TRAVEL["travel_length"]
        options = {"keep_trajectory": keep_trajectory, **(TRAVEL if travels else {}), **self.options}
        restorer = Restorer(self.prior, first.operator, noise=first.noise, **options)
        y = torch.cat([problem.y for problem in problems])
        return restorer, restorer.restore(y, [self.seed] * len(y), progress, start)

    def problem(self, file: Path, frame: int = 0) -> Problem:
        """Read a frame of ``file`` as truth or observation."""
        if self.simulate:
            photo = read_photo(file, frame)
            truth = photo.image[None]
            task = task_from(self.task_settings, {})
            shape = truth_shape(task, truth, file)
            noise = checked_noise(task, self.noise or 0.0)
            y = noisy(task.operator(shape).forward(truth), noise, self.seed)
            return Problem(task, y, shape, truth, noise, attachments=photo.attachments)
        observation = read_observation(file, frame)
        task = task_from(self.task_settings, observation.metadata)
        y = observation.value[None]
        if task.name in APPRAISED and "task" not in observation.metadata:
            return self._appraised(task, observation, file)
        if "task" in observation.metadata:
            shape = stored_shape(observation.metadata, file)
        else:
            shape = task.image_shape(tuple(y.shape[1:]))
            if task.name == "inpaint" or (task.name == "colorize" and y.shape[1] == 3):
                y = task.operator(shape).forward(y)
        estimated = self.noise == "auto"
        level = observation.metadata.get("noise", 0.0) if self.noise is None else self.noise
        noise = checked_noise(task, level) if not estimated else estimated_noise(task, y, shape)
        if estimated and (quantization := compression(file)) is not None:
            noise = max(noise, quantization.noise)
        return Problem(task, y, shape, None, noise, estimated, observation.attachments)

    def _origin(self, file: Path, target: Path) -> Record:
        """What it takes to make ``target`` again and to compare it."""
        hashes = {"file_sha256": file_hash(file), "out": str(target), "out_sha256": file_hash(target)}
        return {"job": self.settings(), **hashes}

    def _appraised(self, task: Task, observation: Observation, file: Path) -> Problem:
        """The problem that a photo as it is found poses."""
        if self.noise is not None and self.noise != "auto":
            checked_noise(task, self.noise)
        found = appraise(task, observation.value[None], self.noise, compression(file))
        chosen = found.task or task
        return Problem(
            chosen,
            found.y,
            chosen.image_shape(tuple(found.y.shape[1:])),
            None,
            found.noise,
            found.estimated,
            observation.attachments,
            found.mask,
            found.findings,
            found.task is None,
        )

    def record(self, file: Path, problem: Problem, restorer: Restorer, result: Restoration, index: int = 0) -> Record:
        """What is kept of image ``index`` of a restored batch; raises DeqirError where it is not finite."""
        if result.status[index] is Status.NON_FINITE:
            raise NonFiniteError(
                f"{file}: the chain gave NaN or infinite values at timestep {result.failed_at[index]}; "
                "check the prior, the dtype and the observation"
            )
        record: Record = {
            "file": str(file),
            "task": problem.task.name,
            "task_settings": problem.task.settings(),
            "steps": restorer.steps,
            "eta": restorer.eta,
            "noise": problem.noise,
            "noise_estimated": problem.noise_estimated,
            **describe_rule(restorer.chosen_rule),
            "spacing": restorer.spacing,
            "travel_length": restorer.travel_length,
            "travel_repeat": restorer.travel_repeat,
            "seed": self.seed,
            "prior": self.prior.name,
            "solver": result.stats.solver,
            "solver_reason": result.stats.reason,
            "tolerance": restorer.tolerance,
            "max_sweeps": restorer.max_sweeps,
            "window": restorer.window,
            "simulate": self.simulate,
            "status": result.status[index].name.lower(),
            "sweeps": result.stats.sweeps[index],
            "nfe": result.stats.nfe[index],
            "seconds": round(result.stats.seconds, 3),
            "max_batch": result.stats.max_batch,
            "tile": result.stats.tile,
            "residual": last_residual(result, index),
            "estimated_error": finite_or_none(float(result.estimated_error[index])),
            "measurement_error": float(result.measurement_error[index]),
            "device": str(resolve_device(restorer.device)),
            "dtype": restorer.dtype,
            "version": __version__,
        }
        if problem.findings:
            record["findings"] = dict(problem.findings)
        if problem.truth is not None:
            record |= scores(problem, result.image[index : index + 1].cpu())
        return record


def untouched(file: Path, problem: Problem) -> Record:
    """The record of a photo that was left as it is."""
    return {
        "file": str(file),
        "task": problem.task.name,
        "task_settings": problem.task.settings(),
        "noise": problem.noise,
        "noise_estimated": problem.noise_estimated,
        "solver": "none",
        "solver_reason": "nothing that is certain to be wrong",
        "status": "unchanged",
        "sweeps": 0,
        "nfe": 0,
        "seconds": 0.0,
        "tolerance": 0.0,
        "findings": dict(problem.findings),
        "version": __version__,
    }


def mask_path(target: Path) -> Path:
    """Where the mask that was detected for the result ``target`` is written."""
    return target.with_name(f"{target.stem}-mask.png")


def write_mask(target: Path, problem: Problem) -> Record:
    """Write the mask that was detected, where one was, beside ``target``; its name for the record."""
    if problem.mask is None:
        return {}
    write_image(mask_path(target), problem.mask[0])
    return {"mask_file": str(mask_path(target))}


def compression(file: Path) -> JpegQuantization | None:
    """How ``file`` was quantised, where it is a JPEG file."""
    return None if file.suffix.lower() == ".safetensors" else read_quantization(file)


def scores(problem: Problem, image: Tensor) -> Record:
    """PSNR (dB; None: identical) and SSIM of ``image`` and of the classical method against the truth."""
    if problem.truth is None:
        raise OptionError("scores need the truth; restore with simulate")
    reference = problem.task.classical(problem.y, problem.shape, problem.noise)
    record: Record = {"classical": problem.task.classical_name}
    for prefix, candidate in (("", image.clamp(0, 1)), ("classical_", reference)):
        record[f"{prefix}psnr"] = finite_or_none(float(psnr(candidate, problem.truth)[0]))  # None: identical
        record[f"{prefix}ssim"] = float(ssim(candidate, problem.truth)[0])
    return record


def finite_or_none(value: float) -> float | None:
    """``value`` as JSON can hold it, which has no infinity."""
    return value if isfinite(value) else None


def last_residual(result: Restoration, index: int) -> float | None:
    """The last measured change of image ``index`` in grey levels; None for a serial chain, which has none."""
    values = result.residuals[:, index]
    values = values[~values.isnan()]
    return float(values[-1]) if len(values) else None


def failure(file: Path, error: Exception) -> Record:
    """The record of a file that could not be restored, with the one sentence that says why."""
    sentence = str(error)
    if not isinstance(error, DeqirError):
        if os.environ.get("DEQIR_DEBUG"):
            raise error
        cause = (sentence.splitlines() or [""])[0]
        sentence = f"{file}: {type(error).__name__}: {cause}; please report this, DEQIR_DEBUG=1 shows more"
    return {"file": str(file), "status": "failed", "error": sentence}


def degrade(file: Path, target: Path, task: Task, noise: float = 0.0, seed: int = 0, overwrite: bool = False) -> Record:
    """Write the observation that ``task`` and Gaussian ``noise`` make of the photo ``file``.

    It carries what restoring it needs.
    """
    checked_noise(task, noise)
    refuse_existing(target, overwrite, file)
    truth = read_image(file)[None]
    shape = truth_shape(task, truth, file)
    value = noisy(task.operator(shape).forward(truth), noise, seed)[0]
    metadata = {"task": task.settings(), "image_shape": list(shape), "noise": noise}
    write_observation(target, Observation(value, metadata))
    return {"file": str(file), "out": str(target), "task": task.settings(), "shape": list(value.shape)}


def file_hash(file: Path) -> str:
    """The SHA-256 of the bytes of ``file``. Raises ImageReadError where it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:  # ValueError for a name with a null byte
        reason = getattr(error, "strerror", None) or error
        raise ImageReadError(f"{str(file)!r} cannot be read ({reason}); check the path") from None


def noisy(y: Tensor, noise: float, seed: int) -> Tensor:
    """``y`` with Gaussian noise of standard deviation ``noise``, drawn from ``seed`` apart from the chain's own."""
    return y + noise * torch.randn(y.shape, generator=generator(seed, "observation")) if noise else y


def checked_noise(task: Task, noise: object) -> float:
    """A usable noise level; denoising needs one above zero."""
    if isinstance(noise, bool) or not isinstance(noise, (int, float)) or not 0 <= noise < float("inf"):
        raise OptionError(f"the noise level is {noise!r}; choose zero or a positive number, in units of 0..1")
    if task.name == "denoise" and noise == 0:
        raise OptionError("task denoise needs the noise level; give --noise, in units of 0..1 (0.05 is 13 grey levels)")
    return float(noise)


def estimated_noise(task: Task, y: Tensor, shape: tuple[int, int, int]) -> float:
    """The noise level of the observation ``y`` (1, ...) of an image of ``shape``, from what ``task`` lets one see."""
    if y.ndim != 4:
        raise OptionError(f"the noise of task {task.name} cannot be estimated from its measurements; give it a number")
    operator = task.operator(shape)
    return estimate_noise(y[0], operator.mask if isinstance(operator, Inpainting) else None)


def task_from(asked: Mapping[str, Any], metadata: Mapping[str, Any]) -> Task:
    """The task asked for, its settings completed by those that an observation carries."""
    stored = metadata.get("task", {})
    if not isinstance(stored, Mapping):
        raise OptionError("the observation's task settings are not readable; make it again with deqir degrade")
    if "name" not in asked and "name" not in stored:
        raise OptionError("no task is given and the file carries none; choose one with --task")
    same = asked.get("name", stored.get("name")) == stored.get("name")
    return Task.from_settings({**(stored if same else {}), **asked})


def truth_shape(task: Task, truth: Tensor, file: Path) -> tuple[int, int, int]:
    """(C, H, W) of ``truth`` (1, C, H, W); a grey photo cannot be decoloured."""
    channels, height, width = truth.shape[1:]
    if task.name == "colorize" and channels != 3:
        raise OptionError(f"{file} is grey already; give a colour photo to simulate colorize, or leave --simulate out")
    return channels, height, width


def stored_shape(metadata: Mapping[str, Any], file: Path) -> tuple[int, int, int]:
    """The image shape that an observation carries."""
    shape = metadata.get("image_shape")
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
        raise ImageReadError(f"{file} carries no valid image shape; make the observation again with deqir degrade")
    return shape[0], shape[1], shape[2]


def refuse_existing(target: Path, overwrite: bool, source: Path | None = None) -> None:
    """Raise OutputError where ``target`` exists and may not be replaced; the ``source`` itself never may."""
    if target.exists() and source is not None and source.exists() and target.samefile(source):
        raise OutputError(f"the result of {source} would replace the photo itself; choose another output")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists already; choose another output or add --overwrite")


def refuse_huge(shape: tuple[int, int, int], file: Path) -> None:
    """Raise OptionError where the restored image would be larger than any that is read."""
    if shape[1] * shape[2] > MAX_PIXELS:
        raise OptionError(
            f"{file} would become {shape[2]} x {shape[1]} pixels, more than {MAX_PIXELS:,}; choose a smaller scale"
        )


def make_folder(folder: Path) -> None:
    """Create ``folder``; raises OutputError where that is impossible or it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".deqir-write-test.part"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"output folder {folder} cannot be written ({error.strerror}); choose another") from None


def write_records(path: Path, records: list[Record]) -> None:
    """Write the records of a run as one JSON list, at once or not at all."""
    atomic_write(path, (json.dumps(records, indent=2, allow_nan=False, default=_plain) + "\n").encode())


def _plain(value: object) -> object:
    if isinstance(value, (Path, torch.device)):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
