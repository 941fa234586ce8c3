"""Anderson acceleration with mixing weights of its own for every state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from deqir.errors import OptionError
from deqir.solvers.base import FixedPointSolver
from deqir.solvers.history import History, mixing_weights


@dataclass(frozen=True)
class Anderson(FixedPointSolver):
    """Per-state Anderson acceleration (DEQ-DDIM, arXiv 2210.12867; DeqIR, arXiv 2311.11600, algorithm 1).

    For each state and image, the next iterate is ``sum_i w_i (X_i + damping (F(X_i) - X_i))`` over the last
    ``history_size`` iterates, with the weights of sum one that minimise the mixed residual; ``ridge`` regularises
    them relative to the largest residual kept. Entries from before a state entered the window do not count. Raises
    OptionError where an option is out of its range.
    """

    mixes: ClassVar[bool] = True

    history_size: int = 3
    damping: float = 1.0
    ridge: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.history_size < 1:
            raise OptionError(f"history_size is {self.history_size}; choose at least 1")
        if not 0 < self.damping <= 1:
            raise OptionError(f"damping is {self.damping}; choose a number above 0 and up to 1")
        if self.ridge < 0:
            raise OptionError(f"ridge is {self.ridge}; choose zero or a small positive number")

    def init(self, start: Tensor) -> History:
        """Empty ring buffers for iterates like ``start`` (S, B, ...)."""
        return History.empty(self.history_size, start)

    def propose(self, states: Tensor, images: Tensor, memory: History, active: Tensor) -> tuple[Tensor, History]:
        """The mixture of the held iterates."""
        memory.push(images - states, images, active)
        held = memory.held
        if held == 1 and self.damping == 1:
            return images, memory
        grams, valid = self.systems(memory, active)
        weights = mixing_weights(grams[..., :held, :held], valid[..., :held], self.ridge, memory.latest)
        return memory.mixture(weights, self.damping), memory

    def slide(self, states: Tensor, memory: History, count: int) -> History:
        """The buffers of what is still held, empty for what is new."""
        return memory.slid(count)

    def systems(self, memory: History, active: Tensor) -> tuple[Tensor, Tensor]:
        """The Gram matrices (S, B, h, h) that decide every state's weights, and which entries count (S, B, h)."""
        return memory.gram, memory.valid
