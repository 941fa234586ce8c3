"""Downsampling along one axis: ceil(size / scale) outputs, output i covering the inputs from i * scale on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deqir.operators.boundaries import fold
from deqir.operators.separable import AxisMap, Matrix, decompose_matrix


@dataclass(frozen=True)
class AverageAxis(AxisMap):
    """The mean of each block of ``scale`` inputs, the last block holding what is left.

    The rows of the matrix are disjoint, so its SVD is closed form: s = 1 / sqrt(block length) and U the identity.
    """

    size: int
    scale: int

    def decompose(self) -> tuple[Matrix, Matrix, Matrix]:
        block = np.arange(self.size) // self.scale
        s = 1 / np.sqrt(np.bincount(block))
        V = np.zeros((self.size, len(s)))
        V[np.arange(self.size), block] = s[block]
        return np.eye(len(s)), s, V


@dataclass(frozen=True)
class BicubicAxis(AxisMap):
    """Keys' cubic stretched to ``4 * scale`` taps (antialiased), symmetric boundary, each output's weights sum to 1."""

    size: int
    scale: int

    def matrix(self) -> Matrix:
        """The (ceil(size / scale), size) matrix."""
        outputs = -(-self.size // self.scale)
        centres = np.arange(outputs) * self.scale + (self.scale - 1) / 2
        taps = np.floor(centres).astype(int)[:, None] + np.arange(-2 * self.scale + 1, 2 * self.scale + 1)
        weights = keys_cubic((taps - centres[:, None]) / self.scale)
        weights /= weights.sum(axis=1, keepdims=True)
        result = np.zeros((outputs, self.size))
        np.add.at(result, (np.arange(outputs)[:, None], fold(taps, self.size, "reflect")), weights)
        return result

    def decompose(self) -> tuple[Matrix, Matrix, Matrix]:
        return decompose_matrix(self.matrix())


def keys_cubic(distance: Matrix, a: float = -0.5) -> Matrix:
    """Keys' cubic convolution kernel (IEEE Trans. ASSP 29(6), 1981, eq. 4 for a), zero from distance 2 on."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
