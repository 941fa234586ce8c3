"""What a visitor may ask for: checked settings, within the server's limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from deqir.consistency import RuleName
from deqir.errors import OptionError
from deqir.problems import checked_noise
from deqir.restoration import SolverName
from deqir.schedule import SpacingName
from deqir.tasks import BLURS, MASKS, TASKS, Task

BRUSH = "brush"
SOLVERS: tuple[str, ...] = get_args(SolverName)
SPACINGS: tuple[str, ...] = get_args(SpacingName)
RULES: tuple[str, ...] = get_args(RuleName)


@dataclass(frozen=True)
class Limits:
    """What one visitor may use.

    ``side`` bounds the restored image's longer side and ``photo_pixels`` an uploaded photo, in pixels, ``file_bytes``
    its file, ``steps`` the timesteps of a chain, ``waiting`` the visitors in the queue.
    """

    side: int = 1024
    steps: int = 250
    file_bytes: int = 30_000_000
    photo_pixels: int = 60_000_000
    waiting: int = 20

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) < 1:
                raise OptionError(f"the limit {item.name} is {getattr(self, item.name)}; choose at least 1")


@dataclass(frozen=True)
class Settings:
    """One restoration as the page asks for it; see ``deqir restore`` for the names that both share.

    ``task`` holds the task and its settings, whose mask is the name of one or ``brush``: drawn by the visitor.
    ``simulate``: the photo is the truth and degraded first. ``side``: larger photos are reduced until the longer side
    of the restored image has so many pixels.
    """

    task: Mapping[str, Any] = field(default_factory=lambda: {"name": "sr"})
    simulate: bool = False
    noise: float = 0.0
    prior: str = "builtin"
    steps: int = 20
    eta: float = 0.85
    solver: str = "auto"
    tolerance: float = 0.5
    spacing: str = "cubic"
    rule: str = "auto"
    seed: int = 0
    side: int = 320

    @classmethod
    def checked(cls, given: Mapping[str, Any], limits: Limits, priors: tuple[str, ...]) -> Settings:
        """The settings that ``given``, read from JSON, mean. Raises OptionError where they do not fit."""
        if not isinstance(given, Mapping):
            raise OptionError(f"the settings are {given!r}; give an object of settings by name")
        kinds: dict[str, type | tuple[type, ...]] = {
            item.name: (int, float) if item.type == "float" else {"int": int, "bool": bool, "str": str}[str(item.type)]
            for item in fields(cls)
            if item.name != "task"
        }
        for key, value in given.items():
            if key == "task":
                continue
            if key not in kinds:
                raise OptionError(f"the setting {key!r} is unknown; choose among task, {', '.join(kinds)}")
            if not isinstance(value, kinds[key]) or (isinstance(value, bool) and kinds[key] is not bool):
                raise OptionError(f"the setting {key} is {value!r}; give another kind of value")
        task = given.get("task", {"name": "sr"})
        within = {"steps": min(cls.steps, limits.steps), "side": min(cls.side, limits.side), "prior": priors[0]}
        settings = cls(**{**within, **given, "task": {"name": task} if isinstance(task, str) else task})
        settings._check(limits, priors)
        return settings

    def _check(self, limits: Limits, priors: tuple[str, ...]) -> None:
        for name, value, known in (
            ("prior", self.prior, priors),
            ("solver", self.solver, SOLVERS),
            ("spacing", self.spacing, SPACINGS),
            ("rule", self.rule, RULES),
        ):
            if value not in known:
                raise OptionError(f"{name} is {value!r}; choose one of {', '.join(known)}")
        for name, number, top in (("steps", self.steps, limits.steps), ("side", self.side, limits.side)):
            if not 1 <= number <= top:
                raise OptionError(f"{name} is {number}; choose from 1 to {top}, this server's limit")
        if not 0 <= self.seed < 2**32:
            raise OptionError(f"seed is {self.seed}; choose from 0 to {2**32 - 1}")
        if not isinstance(self.task, Mapping) or "name" not in self.task:
            raise OptionError(f"task is {self.task!r}; give its name, one of {', '.join(TASKS)}, or its settings")
        self._check_task(Task.from_settings({**self.task, **({"mask": "box"} if self.has_brush else {})}))

    def _check_task(self, task: Task) -> None:
        """Names only: a visitor's mask or blur never becomes a path on the server."""
        for name, value, known in (("mask", task.mask, MASKS), ("blur", task.blur, tuple(BLURS))):
            if value not in known:
                raise OptionError(f"{name} is {value!r}; choose one of {', '.join(known)}")
        checked_noise(task, self.noise)
        if task.name == "cs" and not self.simulate:
            raise OptionError("a photo is no compressed-sensing observation; choose to damage a good photo first")

    @property
    def has_brush(self) -> bool:
        """Whether the visitor draws the mask."""
        return self.task.get("name") == "inpaint" and self.task.get("mask") == BRUSH

    @property
    def photo_side(self) -> int:
        """How long the photo's longer side may be: the damaged photo of super-resolution grows."""
        is_small = self.task["name"] == "sr" and not self.simulate
        return max(1, self.side // int(self.task.get("scale", 4))) if is_small else self.side

    def options(self, device: str | None) -> dict[str, Any]:
        """The arguments of ``Restorer`` beside prior, operator and noise."""
        names = ("steps", "eta", "solver", "tolerance", "spacing", "rule")
        return {**{name: getattr(self, name) for name in names}, "device": device}

    def to_json(self) -> dict[str, Any]:
        """What ``checked`` takes."""
        return {**asdict(self), "task": dict(self.task)}
