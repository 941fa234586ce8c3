"""An operator given as a dense matrix, decomposed exactly."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.operators.base import (
    DecomposableOperator,
    LinearOperator,
    Shape,
    require_image,
    require_observation,
    working,
)
from deqir.operators.channels import at_fixed_shape
from deqir.operators.checks import image_shape_or_error


@dataclass(frozen=True, eq=False)
class MatrixOperator(DecomposableOperator):
    """``y = matrix @ x`` with x the image of ``shape`` (C, H, W), row by row: observation (B, M).

    ``matrix`` (M, C * H * W) is a real tensor or NumPy array; a float64 copy is decomposed once (thin SVD), at a cost
    of M * C * H * W * min(M, C * H * W). Singular values below ``max(M, C * H * W)`` units of rounding of the
    matrix's own dtype, relative to the largest, are zero in the operator as in its pseudo-inverse. The entries cannot
    be differentiated with respect to: use ``from_function`` for that.

    Raises OptionError for a complex matrix, a zero one or one that requires gradients, NonFiniteError for NaN in it,
    and ShapeError where it does not fit the shape.
    """

    matrix: Tensor | NDArray[np.generic]
    shape: Shape
    _values: Tensor = field(init=False, repr=False)
    _cutoff: float = field(init=False, repr=False)
    _moved: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor]] = field(
        init=False, repr=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", image_shape_or_error(self.shape))
        values, rounding = _checked(self.matrix, self.shape)
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_cutoff", max(values.shape) * rounding)

    def singular_values(self, like: Tensor) -> Tensor:
        return self._factors(like)[1]

    def V(self, coefficients: Tensor) -> Tensor:
        return (coefficients @ self._factors(coefficients)[2].T).reshape(-1, *self.shape)

    def V_adjoint(self, x: Tensor) -> Tensor:
        require_image(x)
        if tuple(x.shape[1:]) != self.shape:
            raise ShapeError(f"the image has shape {tuple(x.shape[1:])}; the matrix was given for {self.shape}")
        x = working(x)
        return x.flatten(1) @ self._factors(x)[2]

    def U(self, coefficients: Tensor) -> Tensor:
        return coefficients @ self._factors(coefficients)[0].T

    def U_adjoint(self, y: Tensor) -> Tensor:
        require_observation(y, "(batch, measurements)")
        self.image_shape(tuple(y.shape[1:]))
        y = working(y)
        return y @ self._factors(y)[0]

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        if tuple(observation_shape) != (len(self.matrix),):
            raise ShapeError(
                f"one observation has shape {tuple(observation_shape)}; give one of ({len(self.matrix)},), a number "
                "for each row of the matrix"
            )
        return self.shape

    def observation_shape(self, shape: Shape) -> tuple[int, ...]:
        self.at(shape)
        return (len(self.matrix),)

    def at(self, shape: Shape) -> LinearOperator:
        return at_fixed_shape(self, self.shape, shape)

    @cached_property
    def _decomposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (M, r), s (r,) and V (C * H * W, r) for the rank r, in float64."""
        with torch.inference_mode(False), torch.no_grad():
            U, s, Vt = torch.linalg.svd(self._values, full_matrices=False)
            seen = s > self._cutoff * s[0]
            return U[:, seen], s[seen], Vt[seen].T

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key = (like.dtype, like.device)
        if key not in self._moved:
            with torch.inference_mode(False):
                U, s, V = (part.to(like.dtype).to(like.device) for part in self._decomposed)
            self._moved[key] = (U, s, V)
        return self._moved[key]


def _checked(matrix: Tensor | NDArray[np.generic], shape: Shape) -> tuple[Tensor, float]:
    """A float64 copy of ``matrix`` on the CPU, and the rounding unit of the dtype it came in."""
    given = matrix if isinstance(matrix, Tensor) else torch.from_numpy(np.array(matrix))
    size = shape[0] * shape[1] * shape[2]
    if given.ndim != 2 or given.shape[1] != size or not given.numel():
        raise ShapeError(
            f"the matrix has shape {tuple(given.shape)}; give one with {size} columns, the values of an image {shape}"
        )
    if given.is_complex():
        raise OptionError("the matrix is complex; stack its real and imaginary rows")
    if given.requires_grad:
        raise OptionError("the matrix requires gradients, which its decomposition does not carry; use from_function")
    values = given.to("cpu", torch.float64).clone()
    if not bool(values.isfinite().all()):
        raise NonFiniteError("the matrix holds NaN or infinite values; give finite ones")
    if not bool(values.any()):
        raise OptionError("the matrix is zero everywhere, so nothing is observed; give another one")
    rounding = torch.finfo(given.dtype if given.is_floating_point() else torch.float64).eps
    return values, rounding
