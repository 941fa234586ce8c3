"""Convolution with a separable kernel under any boundary, by 1-D matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deqir.operators.boundaries import Boundary, fold, inside
from deqir.operators.separable import NUMERICALLY_ZERO, AxisMap, Matrix, SeparableOperator, decompose_matrix

# A kernel counts as separable where its second singular value is below this fraction of the first: the rounding of a
# kernel that was made in float32 passes, the error stays invisible.
RANK_ONE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class ConvolutionAxis(AxisMap):
    """Convolution of ``size`` samples with ``taps`` centred at ``len(taps) // 2``."""

    size: int
    taps: tuple[float, ...]
    boundary: Boundary

    def matrix(self) -> Matrix:
        """The (size, size) matrix."""
        outputs = np.arange(self.size)[:, None]
        source = outputs + len(self.taps) // 2 - np.arange(len(self.taps))
        weights = np.broadcast_to(np.array(self.taps), source.shape)
        if self.boundary == "zero":
            weights = weights * inside(source, self.size)
        result = np.zeros((self.size, self.size))
        np.add.at(result, (outputs, fold(source, self.size, self.boundary)), weights)
        return result

    def decompose(self) -> tuple[Matrix, Matrix, Matrix]:
        matrix = self.matrix()
        if np.abs(matrix - matrix.T).max() > 1e-14 * np.abs(matrix).max():
            return decompose_matrix(matrix)
        # Symmetric taps, most often: the eigendecomposition is the same thing, several times faster.
        eigenvalues, V = np.linalg.eigh((matrix + matrix.T) / 2)
        return V * np.where(eigenvalues < 0, -1, 1), np.abs(eigenvalues), V


@dataclass(frozen=True)
class SeparableConvolution(SeparableOperator):
    """Convolution with the outer product of ``vertical`` and ``horizontal`` taps, small singular values removed."""

    vertical: tuple[float, ...]
    horizontal: tuple[float, ...]
    boundary: Boundary
    threshold: float

    @property
    def cutoff(self) -> float:
        return max(self.threshold, NUMERICALLY_ZERO)

    def axes(self, height: int, width: int) -> tuple[AxisMap, AxisMap]:
        return (
            ConvolutionAxis(height, self.vertical, self.boundary),
            ConvolutionAxis(width, self.horizontal, self.boundary),
        )


def rank_one_factors(kernel: Matrix) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Vertical and horizontal taps whose outer product is ``kernel`` (kh, kw), or None where there are none."""
    U, s, V = decompose_matrix(kernel)
    if len(s) > 1 and s[1] > RANK_ONE_TOLERANCE * s[0]:
        return None
    root = np.sqrt(s[0])
    return tuple((root * U[:, 0]).tolist()), tuple((root * V[:, 0]).tolist())
