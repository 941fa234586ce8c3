"""What a visitor may ask for: checked settings, within the server's limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from deqir.averaging import AVERAGE
from deqir.consistency import RuleName
from deqir.errors import OptionError
from deqir.old_photo import DETECT, TRAVEL
from deqir.problems import checked_noise
from deqir.restoration import SolverName
from deqir.schedule import SpacingName
from deqir.tasks import BLURS, MASKS, TASKS, Task
from deqir.tiling import TileSize, checked_tiling

BRUSH = "brush"
BRUSH_COLOUR = (0.88, 0.11, 0.45)
BRUSHED = ("inpaint", "old-photo")
"""Tasks whose mask a visitor can draw."""
AUTO, NO_TILES = "auto", "none"
REFERENCES = ("colours", "picture")
SOLVERS: tuple[str, ...] = get_args(SolverName)
SPACINGS: tuple[str, ...] = get_args(SpacingName)
RULES: tuple[str, ...] = get_args(RuleName)
NoiseLevel = float | Literal["auto"]
_KINDS: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "int | None": (int, type(None)),
    "int | str": (int, str),
    "float": (int, float),
    "NoiseLevel": (int, float, str),
    "str": (str,),
    "bool": (bool,),
}


LARGEST = 2**32
"""No number that makes sense is as large, seeds among them; larger ones overflow somewhere."""


def _refuse_enormous(given: Mapping[str, Any]) -> None:
    """Raise OptionError where a number in ``given`` is NaN or too large for any setting."""
    for key, value in given.items():
        if isinstance(value, (int, float)) and not -LARGEST < value < LARGEST:
            raise OptionError(f"the setting {key} is no number in reach; choose one between -{LARGEST} and {LARGEST}")


def refuse_whole(leave_alone: bool, findings: Mapping[str, Any]) -> None:
    """Raise OptionError where there is nothing to restore in a photo that was looked at."""
    if leave_alone:
        raise OptionError(f"{findings['assumed']}; or choose another task")


@dataclass(frozen=True)
class Limits:
    """What one visitor may use.

    ``side`` bounds the restored image's longer side and ``photo_pixels`` an uploaded photo, in pixels, ``file_bytes``
    its file, ``steps`` the network calls of a serial chain, ``iterations`` those of an optimisation toward a reference,
    ``waiting`` the visitors in the queue.
    """

    side: int = 1024
    steps: int = 250
    file_bytes: int = 30_000_000
    photo_pixels: int = 60_000_000
    waiting: int = 20
    iterations: int = 30

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) < 1:
                raise OptionError(f"the limit {item.name} is {getattr(self, item.name)}; choose at least 1")


@dataclass(frozen=True)
class Settings:
    """One restoration as the page asks for it; see ``deqir restore`` for the names that both share.

    ``task`` holds the task and its settings, whose mask is the name of one or ``brush``: drawn by the visitor.
    ``simulate``: the photo is the truth and degraded first. ``side``: larger photos are reduced until the longer side
    of the restored image has so many pixels. ``noise`` is a level or ``auto``, estimated; ``tile`` a number of pixels,
    ``auto`` or ``none``. ``reference``: what the result takes from a reference photo, where there is one, its colours
    or the picture, by an optimisation of so many ``iterations``. None leaves a choice to the task.
    """

    task: Mapping[str, Any] = field(default_factory=lambda: {"name": "sr"})
    simulate: bool = False
    noise: NoiseLevel = 0.0
    prior: str = "builtin"
    steps: int = 20
    eta: float = 0.85
    solver: str = "auto"
    tolerance: float = 0.5
    spacing: str = "cubic"
    rule: str = "auto"
    seed: int = 0
    side: int = 320
    tile: int | str = AUTO
    tile_overlap: int | None = None
    travel_length: int | None = None
    travel_repeat: int | None = None
    average: float = AVERAGE
    reference: str = "colours"
    iterations: int = 10

    @classmethod
    def checked(cls, given: Mapping[str, Any], limits: Limits, priors: tuple[str, ...]) -> Settings:
        """The settings that ``given``, read from JSON, mean. Raises OptionError where they do not fit."""
        if not isinstance(given, Mapping):
            raise OptionError(f"the settings are {given!r}; give an object of settings by name")
        kinds = {item.name: _KINDS[str(item.type)] for item in fields(cls) if item.name != "task"}
        for key, value in given.items():
            if key == "task":
                continue
            if key not in kinds:
                raise OptionError(f"the setting {key!r} is unknown; choose among task, {', '.join(kinds)}")
            if not isinstance(value, kinds[key]) or (isinstance(value, bool) and kinds[key] != (bool,)):
                raise OptionError(f"the setting {key} is {value!r}; give another kind of value")
        task = given.get("task", {"name": "sr"})
        _refuse_enormous({**given, **(task if isinstance(task, Mapping) else {})})
        within = {name: min(getattr(cls, name), getattr(limits, name)) for name in ("steps", "side", "iterations")}
        within |= {"prior": priors[0]}
        settings = cls(**{**within, **given, "task": {"name": task} if isinstance(task, str) else task})
        settings._check(limits, priors)
        return settings

    def _check(self, limits: Limits, priors: tuple[str, ...]) -> None:
        for name, value, known in (
            ("prior", self.prior, priors),
            ("solver", self.solver, SOLVERS),
            ("spacing", self.spacing, SPACINGS),
            ("rule", self.rule, RULES),
            ("reference", self.reference, REFERENCES),
        ):
            if value not in known:
                raise OptionError(f"{name} is {value!r}; choose one of {', '.join(known)}")
        for name in ("steps", "side", "iterations"):
            number, top = getattr(self, name), getattr(limits, name)
            if not 1 <= number <= top:
                raise OptionError(f"{name} is {number}; choose from 1 to {top}, this server's limit")
        checked_tiling(self.tile_size, self.tile_overlap)
        self._check_travel(limits)
        if not 0 <= self.average < float("inf"):
            raise OptionError(f"average is {self.average}; choose 0 (the last state) or a noise level in units of 0..1")
        if not 0 <= self.seed < 2**32:
            raise OptionError(f"seed is {self.seed}; choose from 0 to {2**32 - 1}")
        if not isinstance(self.task, Mapping) or "name" not in self.task:
            raise OptionError(f"task is {self.task!r}; give its name, one of {', '.join(TASKS)}, or its settings")
        self._check_task(Task.from_settings({**self.task, **({"mask": "box"} if self.has_brush else {})}))
        if self._enlarges and self._scale > self.side:
            raise OptionError(
                f"scale is {self._scale}, more than the {self.side} pixels of the restored image's longer side; "
                "choose a smaller scale"
            )

    def _check_travel(self, limits: Limits) -> None:
        old = self.task.get("name") == "old-photo" if isinstance(self.task, Mapping) else False
        repeat = (TRAVEL["travel_repeat"] if old else 1) if self.travel_repeat is None else self.travel_repeat
        if repeat < 1 or (self.travel_length is not None and self.travel_length < 1):
            raise OptionError(f"travel_length is {self.travel_length} and travel_repeat {repeat}; choose at least 1")
        if self.steps * repeat > limits.steps:
            raise OptionError(
                f"{self.steps} steps, walked {repeat} times, are more than {limits.steps}, this server's limit; "
                "choose fewer steps or a smaller travel_repeat"
            )

    def _check_task(self, task: Task) -> None:
        """Names only: a visitor's mask or blur never becomes a path on the server."""
        masks = (*MASKS, DETECT) if task.name == "old-photo" else MASKS
        for name, value, known in (("mask", task.mask, masks), ("blur", task.blur, tuple(BLURS))):
            if value not in known:
                raise OptionError(f"{name} is {value!r}; choose one of {', '.join(known)}")
        if task.mask_seed < 0:
            raise OptionError(f"mask_seed is {task.mask_seed}; choose from 0 to {LARGEST - 1}")
        if self.noise != AUTO:
            checked_noise(task, self.noise)
        elif self.simulate:
            raise OptionError("noise is added to a good photo, so its level is needed; give a number instead of auto")
        if task.name == "cs" and not self.simulate:
            raise OptionError("a photo is no compressed-sensing observation; choose to damage a good photo first")

    @property
    def has_brush(self) -> bool:
        """Whether the visitor draws the mask."""
        return self.task.get("name") in BRUSHED and self.task.get("mask") == BRUSH

    @property
    def photo_side(self) -> int:
        """How long the photo's longer side may be: a damaged photo that is enlarged grows."""
        return self.side // self._scale if self._enlarges and not self.simulate else self.side

    @property
    def _enlarges(self) -> bool:
        return self.task["name"] in ("sr", "old-photo")

    @property
    def _scale(self) -> int:
        return int({**TASKS[self.task["name"]].defaults, **self.task}.get("scale", Task.scale))

    @property
    def tile_size(self) -> TileSize | str:
        """``tile`` as ``Restorer`` takes it."""
        return None if self.tile == NO_TILES else self.tile

    def options(self, device: str | None) -> dict[str, Any]:
        """The arguments of ``Restorer`` beside prior, operator and noise."""
        names = ("steps", "eta", "solver", "tolerance", "spacing", "rule", "average")
        chosen = {name: getattr(self, name) for name in ("travel_length", "travel_repeat")}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        tiling = {"tile": self.tile_size, "tile_overlap": self.tile_overlap}
        return {**{name: getattr(self, name) for name in names}, **tiling, **chosen, "device": device}

    def to_json(self) -> dict[str, Any]:
        """What ``checked`` takes."""
        return {**asdict(self), "task": dict(self.task)}
