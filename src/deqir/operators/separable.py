"""Operators that act on the rows and the columns of each channel independently, by small exact matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqir.operators.base import DecomposableOperator, require_image, require_observation, working

Matrix = NDArray[np.float64]

# Singular values below this fraction of the largest are rounding errors of the float64 decomposition.
NUMERICALLY_ZERO = 1e-12


class AxisFactors(NamedTuple):
    """The thin SVD of a matrix along one axis: U (m, r), s (r,), V (n, r)."""

    U: Tensor
    s: Tensor
    V: Tensor


class AxisMap(ABC):
    """A hashable description of a 1-D linear map, from which its SVD is computed once."""

    @abstractmethod
    def decompose(self) -> tuple[Matrix, Matrix, Matrix]:
        """U (m, r), s (r,), V (n, r) in float64."""


def decompose_matrix(matrix: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """The thin SVD of ``matrix`` (m, n) as U (m, r), s (r,), V (n, r)."""
    U, s, Vt = np.linalg.svd(matrix, full_matrices=False)
    return U, s, np.ascontiguousarray(Vt.T)


class SeparableOperator(DecomposableOperator):
    """``A x = R x C^T`` for each channel: the SVD is the product of those of R and C (DDRM, arXiv 2201.11793, app. D).

    Singular values are the outer product of the two axes' ones; those below ``cutoff`` times the largest are zero,
    in A as in its pseudo-inverse.
    """

    @property
    def cutoff(self) -> float:
        """The fraction of the largest singular value below which one counts as zero."""
        return NUMERICALLY_ZERO

    @abstractmethod
    def axes(self, height: int, width: int) -> tuple[AxisMap, AxisMap]:
        """The maps along the height and the width of an image. Raises ShapeError where it does not fit."""

    def image_shape(self, observation_shape: tuple[int, ...]) -> tuple[int, int, int]:
        return (observation_shape[0], observation_shape[1], observation_shape[2])

    @property
    def acts_per_channel(self) -> bool:
        return True

    def singular_values(self, like: Tensor) -> Tensor:
        rows, columns = self._axes_of_observation(like)
        return _outer_singular_values(rows, columns, self.cutoff, like.dtype, like.device)

    def V(self, coefficients: Tensor) -> Tensor:
        rows, columns = self._factors(*self._axes_of_observation(coefficients), coefficients)
        return _both_axes(rows.V, coefficients, columns.V)

    def V_adjoint(self, x: Tensor) -> Tensor:
        require_image(x)
        x = working(x)
        rows, columns = self._factors(*self.axes(x.shape[-2], x.shape[-1]), x)
        return _both_axes(rows.V.T, x, columns.V.T)

    def U(self, coefficients: Tensor) -> Tensor:
        rows, columns = self._factors(*self._axes_of_observation(coefficients), coefficients)
        return _both_axes(rows.U, coefficients, columns.U)

    def U_adjoint(self, y: Tensor) -> Tensor:
        require_observation(y)
        y = working(y)
        rows, columns = self._factors(*self._axes_of_observation(y), y)
        return _both_axes(rows.U.T, y, columns.U.T)

    def _axes_of_observation(self, y: Tensor) -> tuple[AxisMap, AxisMap]:
        _, height, width = self.image_shape(tuple(y.shape[1:]))
        return self.axes(height, width)

    def _factors(self, rows: AxisMap, columns: AxisMap, like: Tensor) -> tuple[AxisFactors, AxisFactors]:
        return _cast_factors(rows, like.dtype, like.device), _cast_factors(columns, like.dtype, like.device)


def _both_axes(rows: Tensor, x: Tensor, columns: Tensor) -> Tensor:
    """rows @ x @ columns^T, never in autocast's lower precision."""
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return rows @ (x @ columns.T)
    with torch.autocast(device, enabled=False):
        return rows @ (x @ columns.T)


@lru_cache(maxsize=8)
def _exact_factors(axis: AxisMap) -> AxisFactors:
    with torch.inference_mode(False):
        return AxisFactors(*(torch.from_numpy(np.ascontiguousarray(part)) for part in axis.decompose()))


@lru_cache(maxsize=16)
def _cast_factors(axis: AxisMap, dtype: torch.dtype, device: torch.device) -> AxisFactors:
    with torch.inference_mode(False):  # a cached inference tensor could not take part in a later backward pass
        return AxisFactors(*(part.to(dtype).to(device) for part in _exact_factors(axis)))


@lru_cache(maxsize=16)
def _outer_singular_values(
    rows: AxisMap, columns: AxisMap, cutoff: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):
        values = torch.outer(_exact_factors(rows).s, _exact_factors(columns).s)
        return torch.where(values >= cutoff * values.max(), values, 0).to(dtype).to(device)
