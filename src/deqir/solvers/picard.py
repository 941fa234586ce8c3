"""Picard iteration."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from deqir.solvers.base import FixedPointSolver


@dataclass(frozen=True)
class Picard(FixedPointSolver):
    """X <- F(X): Jacobi iteration on frozen noise predictions (ParaDiGMS, arXiv 2305.16317)."""

    def init(self, start: Tensor) -> None:
        """Picard iteration remembers nothing."""

    def propose(self, states: Tensor, images: Tensor, memory: None, active: Tensor) -> tuple[Tensor, None]:
        """F(X) itself."""
        return images, None
