"""Fixed-point solvers for causal maps."""

from deqir.solvers.anderson import Anderson
from deqir.solvers.base import FixedPointSolver, Solution, Status, SweepReport
from deqir.solvers.loop import CausalMap, Slide, solve
from deqir.solvers.picard import Picard
from deqir.solvers.triangular_anderson import TriangularAnderson

__all__ = [
    "Anderson",
    "CausalMap",
    "FixedPointSolver",
    "Picard",
    "Slide",
    "Solution",
    "Status",
    "SweepReport",
    "TriangularAnderson",
    "solve",
]
