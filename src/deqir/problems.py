"""Problems from files: what is observed, of which image, by which task, with how much noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from deqir.appraisal import appraise
from deqir.errors import ImageReadError, OptionError
from deqir.images import Attachments, JpegQuantization, read_photo, read_quantization
from deqir.noise import generator
from deqir.noise_estimation import estimate_noise
from deqir.observations import Observation, read_observation
from deqir.operators import Inpainting, LinearOperator
from deqir.tasks import Task

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


@dataclass(frozen=True)
class ProblemReader:
    """How files become problems.

    ``task_settings``: those that were asked for. ``noise``: the level in units of 0..1; None: what the file says, else
    0; ``"auto"``: estimated. With ``simulate`` a file is the truth, which is degraded, with noise drawn from ``seed``.
    """

    task_settings: Mapping[str, Any]
    noise: float | Literal["auto"] | None = None
    simulate: bool = False
    seed: int = 0

    def read(self, file: Path, frame: int = 0) -> Problem:
        """The problem that a frame of ``file`` poses. Raises DeqirError."""
        if self.simulate:
            return self._simulated(file, frame)
        observation = read_observation(file, frame)
        task = task_from(self.task_settings, observation.metadata)
        if task.name in APPRAISED and "task" not in observation.metadata:
            return self._appraised(task, observation, file)
        return self._observed(task, observation, file)

    def _simulated(self, file: Path, frame: int) -> Problem:
        photo = read_photo(file, frame)
        truth = photo.image[None]
        task = task_from(self.task_settings, {})
        shape = truth_shape(task, truth, file)
        if self.noise == "auto":
            raise OptionError("simulate adds noise, so it needs its level; give noise a number instead of auto")
        noise = checked_noise(task, self.noise or 0.0)
        y = noisy(task.operator(shape).forward(truth), noise, self.seed)
        return Problem(task, y, shape, truth, noise, attachments=photo.attachments)

    def _observed(self, task: Task, observation: Observation, file: Path) -> Problem:
        y = observation.value[None]
        if "task" in observation.metadata:
            shape = stored_shape(observation.metadata, file)
        else:
            shape = task.image_shape(tuple(y.shape[1:]))
            if task.name == "inpaint" or (task.name == "colorize" and y.shape[1] == 3):
                y = task.operator(shape).forward(y)
        if self.noise != "auto":
            stored = observation.metadata.get("noise", 0.0)
            noise = checked_noise(task, stored if self.noise is None else self.noise)
            return Problem(task, y, shape, None, noise, False, observation.attachments)
        quantization = compression(file)
        noise = max(estimated_noise(task, y, shape), 0.0 if quantization is None else quantization.noise)
        return Problem(task, y, shape, None, noise, True, observation.attachments)

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


def noisy(y: Tensor, noise: float, seed: int) -> Tensor:
    """``y`` with Gaussian noise of standard deviation ``noise``, drawn from ``seed`` apart from the chain's own."""
    return y + noise * torch.randn(y.shape, generator=generator(seed, "observation")) if noise else y


def compression(file: Path) -> JpegQuantization | None:
    """How ``file`` was quantised, where it is a JPEG file."""
    return None if file.suffix.lower() == ".safetensors" else read_quantization(file)
