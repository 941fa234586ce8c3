"""Which solver and which adjoint suit a restoration that is differentiated."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from deqir.adjoints import Adjoint, ImplicitAdjoint, UnrolledAdjoint
from deqir.choice import choose_solver
from deqir.restoration import Restorer, SolverName

TOLERANCE = 1e-2
"""Of the implicit adjoint where none is given; an optimisation needs no better direction."""


def differentiable(restorer: Restorer, y: Tensor, adjoint: Adjoint | None = None) -> tuple[Restorer, Adjoint]:
    """The ``restorer`` for the observations ``y`` with its solver decided, and ``adjoint`` or one that goes with it.

    A parallel solver goes with implicit differentiation. The serial one, which ``auto`` takes where batching timesteps
    does not pay, goes with the unrolled chain: the same gradient in fewer network evaluations, one after another. What
    is differentiated is the chain's last state, whatever the restorer's ``average``.
    """
    restorer = replace(restorer, average=0.0)
    if restorer.solver == "auto":
        with torch.no_grad():
            choice = choose_solver(restorer.chain(y), restorer.window)
        solver: SolverName = "serial" if choice.solver == "serial" else "preconditioned"
        restorer = replace(restorer, solver=solver, window=choice.window or restorer.window)
    if adjoint is None:
        adjoint = UnrolledAdjoint() if restorer.solver == "serial" else ImplicitAdjoint(tolerance=TOLERANCE)
    return restorer, adjoint
