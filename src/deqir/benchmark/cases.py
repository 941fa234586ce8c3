"""What a benchmark compares: degradations, methods, chains and priors, and the cases they make of every image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from typing import Any, get_args
from zlib import crc32

from deqir.benchmark.dataset import Preparation
from deqir.consistency import RuleName
from deqir.errors import OptionError
from deqir.problems import checked_noise
from deqir.restoration import SolverName
from deqir.schedule import Spacing
from deqir.tasks import TASKS, Task

CLASSICAL = "classical"


@dataclass(frozen=True)
class Degradation:
    """A task with the standard deviation ``noise`` of its observation's Gaussian noise, in units of 0..1."""

    task: Task
    noise: float = 0.0

    def __post_init__(self) -> None:
        checked_noise(self.task, self.noise)

    def __str__(self) -> str:
        """``sr:scale=4,noise=0.05``: the task's first setting, others that are not the default, and the noise."""
        defaults = {item.name: item.default for item in fields(Task)}
        values = self.task.settings()
        names = TASKS[self.task.name].settings
        shown = [f"{key}={values[key]}" for key in names if key == names[0] or values[key] != defaults[key]]
        shown += [f"noise={self.noise:g}"] if self.noise else []
        return f"{self.task.name}:{','.join(shown)}" if shown else self.task.name

    def settings(self) -> dict[str, Any]:
        """The task's name and settings, and the noise, for a file."""
        return {**self.task.settings(), "noise": self.noise}


@dataclass(frozen=True)
class Method:
    """A ``solver`` with a consistency ``rule``, or the classical method of the task (solver ``classical``).

    Raises OptionError for a solver or rule that is unknown, and for a rule with ``classical``.
    """

    solver: str
    rule: str = "auto"

    def __post_init__(self) -> None:
        solvers = (*get_args(SolverName), CLASSICAL)
        if self.solver not in solvers:
            raise OptionError(f"the method is {self.solver!r}; choose one of {', '.join(solvers)}")
        if self.rule not in get_args(RuleName):
            raise OptionError(f"the rule of method {self} is unknown; choose one of {', '.join(get_args(RuleName))}")
        if self.is_classical and self.rule != "auto":
            raise OptionError(f"the method {self} has a rule, which classical methods have not; leave it out")

    @classmethod
    def parse(cls, text: str) -> Method:
        """The method that ``solver`` or ``solver:rule`` names."""
        solver, _, rule = text.strip().partition(":")
        return cls(solver, rule or "auto")

    def __str__(self) -> str:
        return self.solver if self.rule == "auto" else f"{self.solver}:{self.rule}"

    @property
    def is_classical(self) -> bool:
        """Whether no prior is needed."""
        return self.solver == CLASSICAL


@dataclass(frozen=True)
class Chain:
    """The settings of ``Restorer`` that a diffusion method runs with, named as there."""

    steps: int = 100
    eta: float = 0.85
    spacing: Spacing = "cubic"
    travel_length: int = 1
    travel_repeat: int = 1
    tolerance: float = 0.5
    max_sweeps: int | None = None


@dataclass(frozen=True)
class Setup:
    """One row of the table: everything of a case but its image. A classical method has no prior and no chain."""

    degradation: Degradation
    method: Method
    prior: str | None = None
    chain: Chain | None = None

    def __str__(self) -> str:
        """``sr:scale=4, serial, builtin, 100 steps``."""
        parts = [str(self.degradation), str(self.method)]
        parts += [] if self.chain is None else [str(self.prior), f"{self.chain.steps} steps"]
        return ", ".join(parts)

    def settings(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        chain = None if self.chain is None else asdict(self.chain)
        return {
            "task": self.degradation.settings(),
            "method": str(self.method),
            "prior": self.prior,
            "chain": chain,
        }


@dataclass(frozen=True)
class Case:
    """One image restored in one setup; ``seed`` draws the noise of the observation and of the chain."""

    image: str
    setup: Setup
    preparation: Preparation
    seed: int

    @property
    def key(self) -> str:
        """A text that two cases share only if they are the same."""
        prepared = asdict(self.preparation)
        return json.dumps({"image": self.image, "seed": self.seed, **prepared, **self.setup.settings()}, sort_keys=True)


@dataclass(frozen=True)
class Plan:
    """A benchmark: every degradation with every method, every prior and every number of ``steps``.

    ``chain`` holds what all chains share (its ``steps`` are not used); ``seed`` and the name of an image decide all its
    noise, whatever else is in the folder; ``preparation`` says how an image becomes the truth. Raises OptionError where
    a part is empty.
    """

    degradations: tuple[Degradation, ...]
    methods: tuple[Method, ...]
    priors: tuple[str, ...] = ("builtin",)
    steps: tuple[int, ...] = (100,)
    chain: Chain = field(default_factory=Chain)
    preparation: Preparation = field(default_factory=Preparation)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("degradations", "methods", "priors", "steps"):
            if not getattr(self, name):
                asked = "tasks" if name == "degradations" else name
                raise OptionError(f"the benchmark has no {asked}; name at least one")

    def setups(self) -> Iterator[Setup]:
        """The rows of the table, in the order of the plan; a classical method has one a degradation."""
        for degradation, method in product(self.degradations, self.methods):
            if method.is_classical:
                yield Setup(degradation, method)
                continue
            for prior, steps in product(self.priors, self.steps):
                yield Setup(degradation, method, prior, replace(self.chain, steps=steps))

    def case(self, image: str, setup: Setup) -> Case:
        """The case of the image called ``image`` in one of the setups."""
        return Case(image, setup, self.preparation, crc32(f"{self.seed}/{image}".encode()))
