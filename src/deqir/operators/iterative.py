"""Operators whose pseudo-inverse is solved for, and its derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deqir.operators.base import LinearOperator
from deqir.operators.least_squares import LeastSquares, Map


class IterativeOperator(LinearOperator):
    """A linear operator that knows ``forward`` and ``adjoint`` alone: ``pinv`` solves least squares to a tolerance.

    ``pinv`` can be differentiated once by autograd: with respect to its argument, and with respect to the tensors
    that ``forward`` and ``adjoint`` depend on, as long as these keep the rank of A (Golub and Pereyra, SIAM J. Numer.
    Anal. 10, 1973, eq. 4.12). Each backward pass costs one to four more solves, to the same tolerance.
    """

    least_squares: LeastSquares
    """How ``pinv`` is solved for, and how exactly."""

    @property
    def pinv_is_exact(self) -> bool:
        return False

    def pinv(self, y: Tensor) -> Tensor:
        x = self._solve(y)
        if not torch.is_grad_enabled():
            return x
        observed = self.forward(x)
        residual = y - observed
        if not residual.requires_grad:
            return x
        change = _Held.apply(residual, x, self._transposed_solve)
        fixed = residual.detach()
        if observed.requires_grad:  # A itself is to be differentiated
            through_residual = self.adjoint(fixed)
            through_norm = self.adjoint(self._transposed_solve(x))
            change = change + _Held.apply(through_residual, x, self._gram_solve)
            change = change + _Held.apply(through_norm, x, self._null_projection)
        result: Tensor = x + change
        return result

    def _solve(self, y: Tensor) -> Tensor:
        return self.least_squares.solve(self.forward, self.adjoint, y).x

    def _transposed_solve(self, x: Tensor) -> Tensor:
        """The transpose of A+, which is the pseudo-inverse of the transpose."""
        return self.least_squares.solve(self.adjoint, self.forward, x).x

    def _gram_solve(self, x: Tensor) -> Tensor:
        return self._solve(self._transposed_solve(x))

    def _null_projection(self, x: Tensor) -> Tensor:
        return x - self._solve(self.forward(x))


class _Held(torch.autograd.Function):
    """A linear map of a quantity whose value is already accounted for: zero, with the map's transpose as backward."""

    @staticmethod
    def forward(ctx: Any, quantity: Tensor, result: Tensor, transposed: Map) -> Tensor:
        ctx.transposed = transposed
        return torch.zeros_like(result)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        with torch.no_grad():
            return ctx.transposed(gradient), None, None
