"""The proximal map of the data term: pull an image towards an observation, as far as a weight allows."""

from __future__ import annotations

from torch import Tensor

from deqir.operators.base import DecomposableOperator, LinearOperator
from deqir.operators.conjugate_gradients import solve_normal_equations


def data_proximal(
    operator: LinearOperator,
    y: Tensor,
    x: Tensor,
    weight: float,
    tolerance: float = 1e-6,
    max_iterations: int = 200,
) -> Tensor:
    """``argmin_z ||y - A z||^2 + weight ||z - x||^2`` for images ``x`` (B, C, H, W) and their observations ``y``.

    ``weight`` >= 0; with 0 it is the limit ``x + A+(y - A x)``. Closed form where A is decomposable, else conjugate
    gradients to a relative residual of ``tolerance``, see ``solve_normal_equations``.
    """
    missing = y - operator.forward(x)
    if weight == 0:
        return x + operator.pinv(missing)
    if isinstance(operator, DecomposableOperator):
        coefficients = operator.U_adjoint(missing)
        s = operator.singular_values(coefficients)
        return x + operator.V(s / (s.square() + weight) * coefficients)
    return x + solve_normal_equations(operator, operator.adjoint(missing), weight, tolerance, max_iterations)
