"""Conjugate gradients on ``A^T A + shift``, for operators without a known singular value decomposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deqir.errors import OptionError
from deqir.operators.base import LinearOperator

SymmetricMap = Callable[[Tensor], Tensor]


def solve_normal_equations(
    operator: LinearOperator,
    right_hand_side: Tensor,
    shift: float = 0.0,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
) -> Tensor:
    """Solve ``(A^T A + shift) x = b`` for a batch of images, ``b`` and ``x`` (B, C, H, W).

    Every image stops on its own where the norm of its residual is ``tolerance`` times that of b (never less than a few
    rounding errors of the dtype), at the latest after ``max_iterations``; the last iterate is returned then. With
    ``shift`` 0, b must lie in the range of A^T, as ``A^T y`` does; x is then the solution of least norm.

    Gradients with respect to b and to what A is made of are those of the exact solution (implicit differentiation):
    a backward pass solves once more, or a few times where the shift is 0, and keeps no iterates. Raises OptionError
    for a negative shift, a tolerance that is not above zero, or fewer than one iteration.
    """
    if not (shift >= 0 and tolerance > 0 and max_iterations >= 1):
        raise OptionError(
            f"shift is {shift}, tolerance {tolerance} and max_iterations {max_iterations}; "
            "choose zero or more, a positive number, and at least 1"
        )

    def normal(x: Tensor) -> Tensor:
        return operator.adjoint(operator.forward(x)) + shift * x

    def solve(b: Tensor) -> Tensor:
        return solve_normal_equations(operator, b, shift, tolerance, max_iterations)

    with torch.no_grad():
        solution = _iterate(normal, right_hand_side, tolerance, max_iterations)
    if not torch.is_grad_enabled():
        return solution
    residual = right_hand_side - normal(solution)
    if not residual.requires_grad:
        return solution
    if shift:
        return solution + _implicit(residual, solve)
    # The pseudo-inverse N+ of N = A^T A: N+ g = N+ N+ (N g), as g may lie outside the range of A^T, and d(N+ b) has
    # besides N+ (db - dN x) the part (I - N+ N) dN N+ x, by which that range turns.
    with torch.no_grad():
        twice = solve(solution)
    turn = _implicit(normal(twice), lambda g: g - solve(normal(g)))
    return solution + _implicit(residual, lambda g: solve(solve(normal(g)))) + turn


def _iterate(normal: SymmetricMap, b: Tensor, tolerance: float, max_iterations: int) -> Tensor:
    """The method of Hestenes and Stiefel, from zero; images that are done stay as they are."""
    x = torch.zeros_like(b)
    residual = direction = b
    power = start = _squared_norm(b)
    goal = start * max(tolerance, 4 * torch.finfo(b.dtype).eps) ** 2
    for _ in range(max_iterations):
        active = power > goal
        if not bool(active.any()):
            break
        image = normal(direction)
        curvature = (direction * image).flatten(1).sum(1).view_as(power)
        step = torch.where(active & (curvature > 0), power / torch.where(curvature > 0, curvature, 1), 0)
        x = x + step * direction
        residual = residual - step * image
        before, power = power, _squared_norm(residual)
        direction = residual + power / torch.where(before > 0, before, 1) * direction
    return torch.where(start.isfinite(), x, torch.nan)


def _squared_norm(x: Tensor) -> Tensor:
    """(B, 1, 1, 1)."""
    return x.square().sum((1, 2, 3), keepdim=True)


def _implicit(residual: Tensor, solve: SymmetricMap) -> Tensor:
    """Zero, with the gradient of ``solve(residual)``; ``solve`` is symmetric."""
    zero: Tensor = _Implicit.apply(residual, solve)
    return zero


class _Implicit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor, solve: SymmetricMap) -> Tensor:
        ctx.solve = solve
        return torch.zeros_like(residual)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.solve(gradients[0]), None
