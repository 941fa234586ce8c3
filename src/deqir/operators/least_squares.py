"""Minimum-norm least squares by LSQR, a batch at a time: the pseudo-inverse of an operator without a closed form."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from deqir.errors import ConvergenceWarning, OptionError
from deqir.operators.base import inverse_or_zero, working
from deqir.operators.checks import require_integer

Map = Callable[[Tensor], Tensor]

# Rounding keeps y - A x from falling below about so many units of it, relative to |y| + |A| |x|.
ROUNDING_FLOOR = 16
# Each restart takes the true residual, which the recurrences of a run drift away from.
RESTARTS = 4


class LeastSquaresSolution(NamedTuple):
    """``x`` (B, ...); per image (B,) how many iterations it took and whether it met the tolerance."""

    x: Tensor
    iterations: Tensor
    converged: Tensor


@dataclass(frozen=True)
class LeastSquares:
    """The solution x of least norm among those that minimise ``|y - A x|``, that is ``A+ y``, image by image.

    LSQR (Paige and Saunders, ACM TOMS 8, 1982), started from zero so that x stays in the row space of A. An image is
    done when ``|r| <= tolerance |y|`` or ``|A^T r| <= tolerance |A| |r|`` for ``r = y - A x`` as recomputed, with a
    lower bound of ``|A|``; x is then off by at most about tolerance times the condition number of A (the ratio of its
    largest to its smallest nonzero singular value), relative to ``|A+| |y|``. Both residuals are good
    enough at 16 units of rounding of ``|y| + |A| |x|``: in float32, 4e-6 where A is well-conditioned. Images do not
    influence each other.

    Raises OptionError for a tolerance outside (0, 1) or fewer than one iteration.
    """

    tolerance: float = 1e-6
    max_iterations: int = 500

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise OptionError(f"the least squares tolerance is {self.tolerance}; give a number between 0 and 1")
        require_integer("max_iterations", self.max_iterations)

    @torch.no_grad()
    def solve(self, forward: Map, adjoint: Map, y: Tensor) -> LeastSquaresSolution:
        """``A+ y`` for ``y`` (B, ...), in its dtype; images whose y is not finite come out as NaN.

        Warns with ConvergenceWarning where an image does not meet the tolerance.
        """
        scale = working(y).flatten(1).abs().amax(1)
        finite = scale.isfinite()
        scale = torch.where(finite & (scale > 0), scale, 1)
        rhs = torch.where(_like(finite, y), working(y), 0) / _like(scale, y)
        x, iterations, converged = self._solve(forward, adjoint, rhs)
        if not bool(converged.all()):
            warnings.warn(
                f"the pseudo-inverse missed its tolerance {self.tolerance} for {int((~converged).sum())} of "
                f"{len(y)} images within {self.max_iterations} iterations; raise max_iterations or the tolerance",
                ConvergenceWarning,
                stacklevel=3,
            )
        x = torch.where(_like(finite, x), x * _like(scale, x), math.nan)
        return LeastSquaresSolution(x.to(y.dtype), iterations, converged)

    def _solve(self, forward: Map, adjoint: Map, y: Tensor) -> LeastSquaresSolution:
        rounding = ROUNDING_FLOOR * torch.finfo(y.dtype).eps
        goal = _Goal(self.tolerance, _norms(y), rounding * _norms(y))
        residual, gradient = y, adjoint(y)
        x = torch.zeros_like(gradient)
        operator_norm = _norms(gradient) * inverse_or_zero(goal.size)
        used = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        for _ in range(RESTARTS):
            open_ = ~goal.met(_norms(residual), _norms(gradient), operator_norm) & (used < self.max_iterations)
            if not bool(open_.any()):
                break
            run = _Run(open_, self.max_iterations - used, goal.halved(), operator_norm)
            step, count, operator_norm = _lsqr(forward, adjoint, residual * _like(open_, y), run)
            x, used = x + step, used + count
            residual = y - forward(x)
            gradient = adjoint(residual)
            goal = goal._replace(rounding=rounding * (goal.size + operator_norm * _norms(x)))
        return LeastSquaresSolution(x, used, goal.met(_norms(residual), _norms(gradient), operator_norm))


STANDARD = LeastSquares()
"""What operators use that are told nothing else."""


class _Goal(NamedTuple):
    """When an image is done: the tolerance, the norm of its y (B,) and what rounding leaves of a residual (B,)."""

    tolerance: float
    size: Tensor
    rounding: Tensor

    def met(self, residual: Tensor, gradient: Tensor, operator_norm: Tensor) -> Tensor:
        """Whether each image is done, from the norms (B,) of its residual r and of A^T r."""
        small = torch.maximum(self.tolerance * self.size, self.rounding)
        orthogonal = operator_norm * torch.maximum(self.tolerance * residual, self.rounding)
        return (residual <= small) | (gradient <= orthogonal)

    def halved(self) -> _Goal:
        """A goal within this one, as the norms that a run goes by are estimates."""
        return _Goal(self.tolerance / 2, self.size, self.rounding / 2)


class _Run(NamedTuple):
    """One LSQR run, all (B,) but the goal: who takes part, for how many iterations, until when."""

    active: Tensor
    budget: Tensor
    goal: _Goal
    operator_norm: Tensor


def _lsqr(forward: Map, adjoint: Map, y: Tensor, run: _Run) -> tuple[Tensor, Tensor, Tensor]:
    """x, the iterations of each image and a lower bound of the norm of A; names as in the paper's algorithm."""
    beta, u = _normalised(y)
    alpha, v = _normalised(adjoint(u))
    x, w = torch.zeros_like(v), v
    phi_bar, rho_bar, norm = beta, alpha, torch.maximum(run.operator_norm, alpha)
    active, count = run.active, torch.zeros_like(run.budget)
    while bool(active.any()):
        beta, u = _normalised(forward(v) - _like(alpha, u) * u)
        norm = torch.maximum(norm, torch.hypot(alpha, beta))
        alpha, v = _normalised(adjoint(u) - _like(beta, v) * v)
        rho = torch.hypot(rho_bar, beta)
        c, s = rho_bar * inverse_or_zero(rho), beta * inverse_or_zero(rho)
        theta, rho_bar, phi, phi_bar = s * alpha, -c * alpha, c * phi_bar, s * phi_bar
        x = x + _like(torch.where(active, phi * inverse_or_zero(rho), 0), x) * w
        w = v - _like(theta * inverse_or_zero(rho), w) * w
        count = count + active
        active = active & ~run.goal.met(phi_bar, phi_bar * alpha * c.abs(), norm) & (count < run.budget)
    return x, count, norm


def _normalised(x: Tensor) -> tuple[Tensor, Tensor]:
    """The norm of each image, (B,), and the image divided by it; zero stays zero."""
    norms = _norms(x)
    return norms, x * _like(inverse_or_zero(norms), x)


def _norms(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms


def _like(scalars: Tensor, x: Tensor) -> Tensor:
    """(B,) as (B, 1, ..., 1) with as many axes as ``x``."""
    return scalars.view(-1, *(1,) * (x.ndim - 1))
