"""Restoration tasks by name: settings that a command line or a file can hold, and the operator they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqir import classical, operators
from deqir.ageing import damage
from deqir.errors import ImageReadError, OptionError
from deqir.images import read_image, read_mask
from deqir.old_photo import DETECT, classical_old_photo, old_photo_operator
from deqir.operators import LinearOperator
from deqir.operators.boundaries import Boundary
from deqir.operators.superresolution import DownsamplingKernel

Shape = tuple[int, int, int]
MASKS = ("random", "box", "text", "scratches")
SCRATCHES, SPECKS = 6, 30
WIDEST_BLUR = 20
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
    ``blur_width`` (of a Gaussian, in pixels; 0: as ``blur`` says), ``boundary``, ``threshold``. cs: ``ratio``,
    ``mask_seed``. denoise has none. old-photo: ``mask`` (as above, or detect), ``mask_seed``, ``scale``, ``colorize``,
    ``weights``, ``fading`` (auto or none). auto, which chooses denoise or deblur by the photo: ``blur_width``.
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
    blur_width: float = 0.0
    colorize: bool = False
    fading: str = "auto"

    def __post_init__(self) -> None:
        if self.name not in TASKS:
            raise OptionError(f"task is {self.name!r}; choose one of {', '.join(TASKS)}")
        TASKS[self.name].check(self)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Task:
        """The task that ``settings``, read from a file, describe; unknown keys and wrong kinds are refused.

        What they leave open is as in ``TASKS``, else as in a new ``Task``.
        """
        defaults = {item.name: item.default for item in fields(cls)}
        for key, value in settings.items():
            if key not in defaults:
                raise OptionError(f"the task settings hold the unknown entry {key!r}; make the observation again")
            kind = str if key == "name" else type(defaults[key])
            fits = isinstance(value, (int, float) if kind is float else kind)
            if not fits or isinstance(value, bool) != (kind is bool):
                raise OptionError(f"the task setting {key} is {value!r}; make the observation again")
        own = TASKS[settings["name"]].defaults if settings.get("name") in TASKS else {}
        return cls(**{**own, **settings})

    def settings(self) -> dict[str, Any]:
        """The name and the settings that this task uses, for a file."""
        values = asdict(self)
        return {"name": self.name, **{key: values[key] for key in TASKS[self.name].settings}}

    def operator(self, shape: Shape, mask: Tensor | None = None) -> LinearOperator:
        """The forward operator for images of ``shape`` (C, H, W).

        ``mask`` (1, 1, h, w): where the scan of an old photo is whole, in place of the task's own.
        """
        if mask is not None:
            return _old_photo(self, shape, mask).at(shape)
        return TASKS[self.name].build(self, shape).at(shape)

    def scan_mask(self, shape: Shape) -> Tensor:
        """The mask (1, 1, h, w) of an old photo's scan of ``shape`` (C, h, w), 1 where it is whole."""
        return _mask(self, shape)

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        """(C, H, W) of the image behind an observation of ``observation_shape``, where that alone tells it."""
        return TASKS[self.name].image_shape(self, observation_shape)

    def classical(self, y: Tensor, shape: Shape, noise: float = 0.0) -> Tensor:
        """What the classical method makes of ``y`` of noise level ``noise``, (B, C, H, W) in [0, 1]."""
        return TASKS[self.name].classical(self, y, shape, noise)

    def check_files(self) -> None:
        """Read the mask or the kernel that the settings name. Raises DeqirError where no photo could do with it."""
        names_mask = "mask" in TASKS[self.name].settings and self.mask not in MASKS
        if names_mask and not (self.name == "old-photo" and self.mask == DETECT):
            _own_mask(self)
        if self.name == "deblur":
            operators.Deblurring(_blur_kernel(self), self.boundary, self.threshold)

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
    defaults: Mapping[str, Any] = field(default_factory=dict)


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
    if task.mask not in MASKS:
        return _own_mask(task, (height, width))
    if task.mask == "random":
        return operators.random_mask(height, width, task.hidden, torch.Generator().manual_seed(task.mask_seed))
    if task.mask == "box":
        return operators.box_mask(height, width)
    if task.mask == "text":
        return operators.text_mask(height, width, task.mask_seed)
    return (damage(height, width, SCRATCHES, SPECKS, task.mask_seed)[0] == 0).float()


def _own_mask(task: Task, size: tuple[int, int] | None = None) -> Tensor:
    """The mask file of ``size`` (H, W), or of any."""
    if task.mask == DETECT:
        raise OptionError(
            f"a mask is detected in an old photo as it is found; here choose {', '.join(MASKS)} or a file"
        )
    return read_mask(_existing(task.mask, "mask", MASKS), size)


def _old_photo(task: Task, shape: Shape, mask: Tensor) -> LinearOperator:
    return old_photo_operator(mask, task.scale, task.weights if task.colorize else None)


def _scan_shape(task: Task, shape: Shape) -> Shape:
    """(C, h, w) of the scan of a photo of ``shape``."""
    if shape[1] % task.scale or shape[2] % task.scale:
        raise OptionError(f"{shape[2]} x {shape[1]} pixels are no multiple of scale {task.scale}; crop the photo")
    return shape[0], shape[1] // task.scale, shape[2] // task.scale


def _old_shape(task: Task, shape: tuple[int, ...]) -> Shape:
    channels, height, width = _scaled_shape(task, shape)
    return 3 if task.colorize else channels, height, width


def _check_old_photo(task: Task) -> None:
    _check_mask(task)
    if task.fading not in ("auto", "none"):
        raise OptionError(f"fading is {task.fading!r}; choose auto or none")
    old_photo_operator(torch.ones(1, 1, 1, 1), task.scale, task.weights if task.colorize else None)


def _check_width(task: Task) -> None:
    if not 0 <= task.blur_width <= WIDEST_BLUR:
        raise OptionError(f"blur_width is {task.blur_width}; choose 0 to {WIDEST_BLUR} pixels")


def _undecided(task: Task, shape: Shape) -> LinearOperator:
    raise OptionError("task auto is decided by looking at a photo; name one of the other tasks here")


def _check_deblur(task: Task) -> None:
    _check_width(task)
    operators.Deblurring(torch.ones(1, 1), task.boundary, task.threshold)


def _blur_kernel(task: Task) -> Tensor:
    if task.blur_width:
        return operators.gaussian_kernel(2 * ceil(3 * task.blur_width) + 1, task.blur_width)
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
        ("blur", "blur_width", "boundary", "threshold"),
        _check_deblur,
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
    "old-photo": TaskKind(
        ("mask", "hidden", "mask_seed", "scale", "colorize", "weights", "fading"),
        _check_old_photo,
        lambda task, shape: _old_photo(task, shape, _mask(task, _scan_shape(task, shape))),
        _old_shape,
        "Telea, non-local means, bicubic",
        lambda task, y, shape, noise: classical_old_photo(
            y, _mask(task, _scan_shape(task, shape)), task.scale, task.colorize, noise
        ),
        {"mask": DETECT, "scale": 1, "weights": "luma"},
    ),
    "auto": TaskKind(
        ("blur_width",),
        _check_width,
        _undecided,
        _same_shape,
        "none",
        lambda task, y, shape, noise: y.clamp(0, 1),
    ),
}
