"""Fixed-point solvers for causal maps."""

from deqir.solvers.anderson import Anderson
from deqir.solvers.base import CausalMap, FixedPointSolver, Solution, Status, SweepReport, solve
from deqir.solvers.picard import Picard
from deqir.solvers.triangular_anderson import TriangularAnderson

__all__ = [
    "Anderson",
    "CausalMap",
    "FixedPointSolver",
    "Picard",
    "Solution",
    "Status",
    "SweepReport",
    "TriangularAnderson",
    "solve",
]
