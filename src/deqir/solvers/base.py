"""What fixed-point solvers are, and what a solve returns.

Solvers know nothing of diffusion. They solve X = F(X) for X of shape (S, B, ...), where F is causal along axis 0:
F(X)[k] depends on X[0], ..., X[k-1] only. After n sweeps the first n entries are therefore exact, whatever the start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from torch import Tensor

from deqir.errors import OptionError


class Status(str, Enum):
    """How the solve ended for one image; the text is the advice."""

    CONVERGED = "converged"
    MAX_SWEEPS = "stopped at max_sweeps before the tolerance was met; raise max_sweeps or the tolerance"
    NON_FINITE = "the chain itself gave NaN or infinite values; check the prior, the dtype and the observation"


@dataclass(frozen=True)
class SweepReport:
    """What the loop tells a progress callback after one sweep.

    ``finished`` (B,) counts the final states of each image, ``residual`` (B,) is the root mean square change of the
    last state (of the window, where there is one), ``residuals`` (S, B) that of every state: 0 where F kept it, NaN
    where F(X) overflowed. ``states`` (S, B, ...) is the current iterate, ``evaluations`` (B,) the states handed to the
    network so far. Where only a part of the chain is held, the states after the first ``first`` - 1, ``states`` are
    those, and ``guess`` (B, ...), where given, is what they tell of the last of all.
    """

    sweep: int
    finished: Tensor
    residual: Tensor
    residuals: Tensor
    states: Tensor
    evaluations: Tensor
    first: int = 1
    guess: Tensor | None = None


@dataclass(frozen=True)
class Solution:
    """A solved chain. ``states`` (S, B, ...), or the last of them that were held; the rest is per image.

    ``status`` holds B entries, ``sweeps`` and ``evaluations`` (B,) int64 count sequential sweeps and states handed to
    the network, ``residuals`` (sweeps, B) is the history of the root mean square residual of the last state (of the
    window, where there is one), NaN after the image was done; ``finished`` (sweeps, B) the history of its final prefix.
    ``errors`` (B,) float64 is the estimated root mean square distance of the last state to the serial answer: 0 where
    it is exact, infinite where it is not known. ``broken`` (B,) int64 is the position of the first state that came out
    NaN or infinite, -1 where none did; the states from there on mean nothing.
    """

    states: Tensor
    status: tuple[Status, ...]
    sweeps: Tensor
    evaluations: Tensor
    residuals: Tensor
    finished: Tensor
    errors: Tensor
    broken: Tensor

    @property
    def value(self) -> Tensor:
        """The last state, (B, ...)."""
        return self.states[-1]


@dataclass(frozen=True)
class FixedPointSolver(ABC):
    """A rule that proposes the next iterate; ``max_sweeps`` None allows the S sweeps that always suffice.

    ``window`` bounds the states of an image that one sweep hands to the network (None: all): those right after its
    final prefix, over which the window slides (ParaDiGMS, arXiv 2305.16317). States that enter it keep their value of
    the start, or with ``carry``, as published, take that of the last state which was inside.
    """

    mixes: ClassVar[bool] = False
    """Whether a proposal mixes several iterates."""

    max_sweeps: int | None = None
    window: int | None = None
    carry: bool = False

    def __post_init__(self) -> None:
        if self.max_sweeps is not None and self.max_sweeps < 1:
            raise OptionError(f"max_sweeps is {self.max_sweeps}; choose at least 1")
        if self.window is not None and self.window < 1:
            raise OptionError(f"window is {self.window}; choose at least 1 state")

    @abstractmethod
    def init(self, start: Tensor) -> Any:
        """The solver's memory before the first sweep from ``start`` (S, B, ...)."""

    @abstractmethod
    def propose(self, states: Tensor, images: Tensor, memory: Any, active: Tensor) -> tuple[Tensor, Any]:
        """The next iterate and memory from ``states`` X and ``images`` F(X), both (S, B, ...).

        ``active`` (S, B) is true where a state is not final, is inside the window, and F(X) came out finite. The
        proposal is used there alone, and there where it is finite.
        """

    def slide(self, states: Tensor, memory: Any, count: int) -> Any:
        """The memory after the first ``count`` states have gone and as many new ones follow the others.

        ``states`` is what is held then. A solver that does not say otherwise begins anew.
        """
        return self.init(states)
