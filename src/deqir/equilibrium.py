"""The fixed point of a sampling chain, all timesteps at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from deqir.adjoints import Adjoint
from deqir.chain import SamplingChain
from deqir.errors import OptionError
from deqir.precision import GREY_LEVELS_PER_UNIT
from deqir.preconditioner import BandedSecant
from deqir.rolling import RollingChain
from deqir.solvers import CausalMap, FixedPointSolver, Solution, SweepReport, solve

FINAL = 0.3
"""The share of the image's tolerance within which a state before it becomes final."""


def state_tolerances(steps: int, grey_levels: float) -> Tensor:
    """The residual, root mean square in chain units, at which each of the S states may become final.

    The restored image, the last state, may be off by the tolerance itself. The others become final at a third of it:
    what is left of a state's error then stays in it, and later states add to it. Every state has unit scale
    (``sqrt(a_k) image + sqrt(1 - a_k) noise``), and a change of x_k reaches the image with a gain of about
    ``std / sqrt(a_k std^2 + 1 - a_k)`` for images of standard deviation ``std``, at most 1 for ``std <= 1``.
    """
    if not grey_levels >= 0:
        raise OptionError(f"tolerance is {grey_levels} grey levels; choose zero or more (0.5 is the default)")
    tolerances = torch.full((steps,), FINAL * grey_levels / GREY_LEVELS_PER_UNIT, dtype=torch.float64)
    tolerances[-1] = grey_levels / GREY_LEVELS_PER_UNIT
    return tolerances


def solve_equilibrium(
    chain: SamplingChain,
    solver: FixedPointSolver,
    tolerance: float = 0.5,
    start: Tensor | None = None,
    preconditioner: BandedSecant | None = None,
    progress: Callable[[SweepReport], None] | None = None,
    adjoint: Adjoint | None = None,
    kept: int | None = None,
) -> Solution:
    """Solve ``X = chain.sweep(X)``; the last state of the solution is the serial chain's answer.

    ``tolerance`` is the root mean square error allowed on the restored image, in grey levels of 0..255. ``start``
    (S, B, C, H, W) defaults to repeated noise. A ``preconditioner`` linearises the network in every sweep. With an
    ``adjoint`` the states of the solution can be differentiated. The solution holds all states, or, where the solver
    has a window and ``kept`` is given, the last ``kept`` of them at least; the others are then forgotten on the way,
    and memory is bounded by the larger of the two. Raises OptionError where an option is out of range.
    """
    held = len(chain) if kept is None or adjoint is not None else max(kept, solver.window or len(chain))
    if held < len(chain):
        return _solve_rolling(RollingChain(chain, held, preconditioner, start), solver, tolerance, progress)
    if adjoint is not None:
        return adjoint.solution(
            chain, lambda: solve_equilibrium(chain, solver, tolerance, start, preconditioner, progress)
        )
    sweep: CausalMap = chain.sweep
    horizon = None
    if preconditioner is not None:
        jacobian = preconditioner.start(chain.step.levels, chain.initial_noise)
        sweep, horizon = chain.preconditioned_sweep(jacobian), jacobian.horizon
        if start is None:
            start = chain.model_start(jacobian)
        else:
            jacobian.weights.fill_(1)  # a start that somebody gives is worth a look at every state
    first = chain.repeated_noise_start() if start is None else start
    return solve(solver, sweep, first, state_tolerances(len(chain), tolerance), progress, chain.order is None, horizon)


def _solve_rolling(
    rolling: RollingChain,
    solver: FixedPointSolver,
    tolerance: float,
    progress: Callable[[SweepReport], None] | None,
) -> Solution:
    """The last states of the chain; where the solve ends before it sees them, the image as far as it is known."""

    def watch(report: SweepReport) -> None:
        if progress is not None:
            progress(report if rolling.sees_end else replace(report, guess=rolling.clean))

    solution = solve(
        solver,
        rolling.sweep,
        rolling.first(),
        state_tolerances(len(rolling.chain), tolerance),
        watch,
        rolling.chain.order is None,
        None if rolling.jacobian is None else rolling.horizon,
        rolling.slide,
    )
    if rolling.sees_end:
        return solution
    return replace(solution, states=torch.cat([solution.states[:-1], rolling.clean[None]]))
