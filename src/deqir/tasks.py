"""Restoration tasks by name: settings that a command line or a file can hold, and the operator they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqir import classical, operators
from deqir.errors import ImageReadError, OptionError
from deqir.images import read_image, read_mask
from deqir.operators import LinearOperator
from deqir.operators.boundaries import Boundary
from deqir.operators.superresolution import DownsamplingKernel

Shape = tuple[int, int, int]
MASKS = ("random", "box", "text")
BLURS: Mapping[str, Callable[[], Tensor]] = {
    "gaussian": operators.gaussian_kernel,
    "uniform": operators.uniform_kernel,
    "anisotropic": operators.anisotropic_kernel,
    "motion": operators.motion_kernel,
}


@dataclass(frozen=True)
class Task:
    """One degradation with its settings; those of other tasks are ignored.

    ``name`` is a key of ``TASKS``. sr: ``scale``, ``downsampling`` (average or bicubic). inpaint: ``mask`` (random,
    box, text or an image file, white = kept), ``hidden`` fraction of a random mask, ``mask_seed``. colorize:
    ``weights`` (mean or luma). deblur: ``blur`` (gaussian, uniform, anisotropic, motion or an image file),
    ``boundary``, ``threshold``. cs: ``ratio``, ``mask_seed``. denoise has none.
    """

    name: str
    scale: int = 4
    downsampling: DownsamplingKernel = "average"
    mask: str = "random"
    hidden: float = 0.5
    mask_seed: int = 0
    weights: str = "mean"
    blur: str = "gaussian"
    boundary: Boundary = "circular"
    threshold: float = 0.03
    ratio: float = 0.25

    def __post_init__(self) -> None:
        if self.name not in TASKS:
            raise OptionError(f"task is {self.name!r}; choose one of {', '.join(TASKS)}")
        TASKS[self.name].check(self)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Task:
        """The task that ``settings``, read from a file, describe; unknown keys and wrong kinds are refused."""
        defaults = {item.name: item.default for item in fields(cls)}
        for key, value in settings.items():
            if key not in defaults:
                raise OptionError(f"the task settings hold the unknown entry {key!r}; make the observation again")
            kinds = (
                str
                if key == "name"
                else (int, float)
                if key in ("hidden", "threshold", "ratio")
                else type(defaults[key])
            )
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise OptionError(f"the task setting {key} is {value!r}; make the observation again")
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """The name and the settings that this task uses, for a file."""
        values = asdict(self)
        return {"name": self.name, **{key: values[key] for key in TASKS[self.name].settings}}

    def operator(self, shape: Shape) -> LinearOperator:
        """The forward operator for images of ``shape`` (C, H, W)."""
        return TASKS[self.name].build(self, shape).at(shape)

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        """(C, H, W) of the image behind an observation of ``observation_shape``, where that alone tells it."""
        return TASKS[self.name].image_shape(self, observation_shape)

    def classical(self, y: Tensor, shape: Shape, noise: float = 0.0) -> Tensor:
        """What the classical method makes of ``y`` of noise level ``noise``, (B, C, H, W) in [0, 1]."""
        return TASKS[self.name].classical(self, y, shape, noise)

    @property
    def classical_name(self) -> str:
        """The classical method that this task is compared with."""
        return TASKS[self.name].classical_name


@dataclass(frozen=True)
class TaskKind:
    """What deqir knows of one kind of task."""

    settings: tuple[str, ...]
    check: Callable[[Task], object]
    build: Callable[[Task, Shape], LinearOperator]
    image_shape: Callable[[Task, tuple[int, ...]], Shape]
    classical_name: str
    classical: Callable[[Task, Tensor, Shape, float], Tensor]


def _same_shape(task: Task, shape: tuple[int, ...]) -> Shape:
    if len(shape) != 3:
        raise OptionError(f"task {task.name} takes images, but the observation has shape {shape}; check --task")
    return shape[0], shape[1], shape[2]


def _scaled_shape(task: Task, shape: tuple[int, ...]) -> Shape:
    channels, height, width = _same_shape(task, shape)
    return channels, task.scale * height, task.scale * width


def _colour_shape(task: Task, shape: tuple[int, ...]) -> Shape:
    return 3, *_same_shape(task, shape)[1:]


def _untold_shape(task: Task, shape: tuple[int, ...]) -> Shape:
    raise OptionError(
        "a compressed-sensing observation does not tell its image size; take a file made by deqir degrade"
    )


def _check_mask(task: Task) -> None:
    if not 0 <= task.hidden < 1:
        raise OptionError(f"hidden is {task.hidden}; choose a fraction from 0 up to, not including, 1")


def _mask(task: Task, shape: Shape) -> Tensor:
    height, width = shape[1:]
    if task.mask == "random":
        return operators.random_mask(height, width, task.hidden, torch.Generator().manual_seed(task.mask_seed))
    if task.mask == "box":
        return operators.box_mask(height, width)
    if task.mask == "text":
        return operators.text_mask(height, width, task.mask_seed)
    return read_mask(_existing(task.mask, "mask", MASKS), (height, width))


def _blur_kernel(task: Task) -> Tensor:
    if task.blur in BLURS:
        return BLURS[task.blur]()
    return operators.kernel_from_image(read_image(_existing(task.blur, "blur", tuple(BLURS))))


def _existing(name: str, what: str, known: tuple[str, ...]) -> Path:
    if not Path(name).is_file():
        raise ImageReadError(f"{what} {name!r} is not a file, nor one of {', '.join(known)}")
    return Path(name)


def _wiener(task: Task, y: Tensor, shape: Shape, noise: float) -> Tensor:
    balance = min(max(classical.WIENER_BALANCE, classical.WIENER_BALANCE_PER_VARIANCE * noise**2), 0.1)
    return classical.wiener_deconvolution(y, _blur_kernel(task), balance)


TASKS: Mapping[str, TaskKind] = {
    "sr": TaskKind(
        ("scale", "downsampling"),
        lambda task: operators.SuperResolution(task.scale, task.downsampling),
        lambda task, shape: operators.SuperResolution(task.scale, task.downsampling),
        _scaled_shape,
        "bicubic",
        lambda task, y, shape, noise: classical.bicubic_upsampling(y, task.scale, shape[1:]),
    ),
    "inpaint": TaskKind(
        ("mask", "hidden", "mask_seed"),
        _check_mask,
        lambda task, shape: operators.Inpainting(_mask(task, shape)),
        _same_shape,
        "biharmonic",
        lambda task, y, shape, noise: classical.biharmonic_inpainting(y, _mask(task, shape)),
    ),
    "colorize": TaskKind(
        ("weights",),
        lambda task: operators.Colorization(task.weights),
        lambda task, shape: operators.Colorization(task.weights),
        _colour_shape,
        "grey",
        lambda task, y, shape, noise: classical.grey_colorization(y),
    ),
    "deblur": TaskKind(
        ("blur", "boundary", "threshold"),
        lambda task: operators.Deblurring(torch.ones(1, 1), task.boundary, task.threshold),
        lambda task, shape: operators.Deblurring(_blur_kernel(task), task.boundary, task.threshold),
        _same_shape,
        "wiener",
        _wiener,
    ),
    "denoise": TaskKind(
        (),
        lambda task: None,
        lambda task, shape: operators.Denoising(),
        _same_shape,
        "non-local means",
        lambda task, y, shape, noise: classical.non_local_means(y, noise),
    ),
    "cs": TaskKind(
        ("ratio", "mask_seed"),
        lambda task: operators.CompressedSensing(task.ratio),
        lambda task, shape: operators.CompressedSensing(task.ratio, seed=task.mask_seed),
        _untold_shape,
        "pseudo-inverse",
        lambda task, y, shape, noise: task.operator(shape).pinv(y).clamp(0, 1),
    ),
}
