"""Time travel: any rule in a chain that goes back to noisier levels and walks them again."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal, get_args

from torch import Tensor

from deqir.consistency.base import AffineStep, ConsistencyRule
from deqir.consistency.checks import required_noises
from deqir.errors import OptionError
from deqir.noise import StepNoises
from deqir.operators import LinearOperator
from deqir.schedule import NoiseLevels

Origin = Literal["denoised", "state"]


@dataclass(frozen=True)
class TimeTravel(ConsistencyRule):
    """``rule`` in a chain whose levels travel, see ``NoiseLevels.with_travel`` (RePaint; DDNM, arXiv 2212.00490).

    Going back needs no network call. From ``origin`` "denoised", as in DDNM's published code, it noises the clean
    estimate ``xh`` that the step began with, before its correction: ``x' = sqrt(a_j) xh + sqrt(1 - a_j) z_i``. From
    "state", as in the paper's algorithm 2 and in RePaint (arXiv 2201.09865), it adds to the state that the step ends
    in, at level a, what the forward process would: ``x' = sqrt(a_j / a) x + sqrt(1 - a_j / a) z_{S+i}``, for which the
    noises have 2 S entries.
    """

    rule: ConsistencyRule
    origin: Origin = "denoised"

    def __post_init__(self) -> None:
        if self.origin not in get_args(Origin):
            raise OptionError(f"origin is {self.origin!r}; choose one of {', '.join(get_args(Origin))}")

    @property
    def needs_noise(self) -> bool:
        """Always: going back is adding noise."""
        return True

    def noise_count(self, levels: NoiseLevels) -> int:
        """One a step, and with origin "state" another one."""
        return 2 * len(levels) if self.origin == "state" else len(levels)

    def bind(
        self, operator: LinearOperator, y: Tensor, levels: NoiseLevels, noises: StepNoises | None
    ) -> TimeTravelStep:
        """The rule for one observation ``y``."""
        drawn = required_noises("time travel", noises)
        return TimeTravelStep(self.rule.bind(operator, y, levels, drawn), levels, self.origin, drawn)


@dataclass(frozen=True, eq=False)
class TimeTravelStep(AffineStep):
    """Time travel on one problem; ``step`` is that of the rule itself."""

    step: AffineStep
    levels: NoiseLevels
    origin: Origin
    noises: StepNoises

    @property
    def travels(self) -> bool:
        """Yes."""
        return True

    def first_state(self, noise: Tensor) -> Tensor:
        """x_0 as the rule begins."""
        return self.step.first_state(noise)

    def parts(self, i: int, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """The step of the rule, and back where the chain travels."""
        a, below = self.levels.step(i)
        back = float(self.levels.alphas[i + 1])
        if back == below:
            return self.step.parts(i, x, e)
        if self.origin == "denoised":
            return (x - sqrt(1 - a) * e) / sqrt(a), sqrt(1 - back) * self.noises[i]
        clean, noise = self.step.parts(i, x, e)
        kept = back / below
        return clean, sqrt(kept) * noise + sqrt(1 - kept) * self.noises[len(self.levels) + i]
