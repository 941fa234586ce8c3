"""Convolution of a mirrored image with a symmetric kernel, diagonal in the cosine basis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import pi, sqrt

import numpy as np
import torch
from torch import Tensor

from deqir.operators.base import DecomposableOperator, Shape, require_image, require_observation, working
from deqir.operators.separable import NUMERICALLY_ZERO, Matrix

# The rounding of a kernel that was made in float32 passes.
SYMMETRY_TOLERANCE = 1e-6


@dataclass(frozen=True)
class CosineConvolution(DecomposableOperator):
    """Convolution, the image mirrored with its edge pixel repeated, with a kernel that equals both its mirror images.

    V is the orthonormal inverse discrete cosine transform (DCT-II; Strang, SIAM Review 1999), s the magnitude of the
    kernel's cosine series and U the inverse transform after a multiplication with its sign. Magnitudes below
    ``threshold`` times the largest are zero. The kernel of ``kernel_shape`` is given by its float64 values row by row.
    """

    kernel_bytes: bytes
    kernel_shape: tuple[int, int]
    threshold: float

    @classmethod
    def of(cls, kernel: Matrix, threshold: float) -> CosineConvolution | None:
        """The convolution with the 2-D ``kernel``; None where that is not symmetric about its central element."""
        height, width = kernel.shape
        if height % 2 == 0 or width % 2 == 0:
            return None
        symmetric = (kernel + kernel[::-1] + kernel[:, ::-1] + kernel[::-1, ::-1]) / 4
        if np.abs(kernel - symmetric).max() > SYMMETRY_TOLERANCE * np.abs(kernel).max():
            return None
        return cls(np.ascontiguousarray(symmetric).tobytes(), (height, width), threshold)

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        return (observation_shape[0], observation_shape[1], observation_shape[2])

    @property
    def acts_per_channel(self) -> bool:
        return True

    def singular_values(self, like: Tensor) -> Tensor:
        return self._gains(like).abs()

    def V(self, coefficients: Tensor) -> Tensor:
        return inverse_cosine_transform(coefficients)

    def V_adjoint(self, x: Tensor) -> Tensor:
        require_image(x)
        return cosine_transform(working(x))

    def U(self, coefficients: Tensor) -> Tensor:
        return inverse_cosine_transform(coefficients * self._signs(coefficients))

    def U_adjoint(self, y: Tensor) -> Tensor:
        require_observation(y)
        return cosine_transform(working(y)) * self._signs(y)

    def _gains(self, like: Tensor) -> Tensor:
        return _gains(self, like.shape[-2], like.shape[-1], like.dtype, like.device)

    def _signs(self, like: Tensor) -> Tensor:
        """1 and, where the kernel inverts a frequency, -1."""
        gains = self._gains(like)
        return 1 - 2 * (gains < 0).to(gains.dtype)


def cosine_transform(x: Tensor) -> Tensor:
    """The orthonormal DCT-II of a real ``x`` along its last two axes, by real FFTs of the same size."""
    return _transform(_transform(x).mT).mT


def inverse_cosine_transform(coefficients: Tensor) -> Tensor:
    """The inverse, and transpose, of ``cosine_transform``."""
    return _inverse(_inverse(coefficients).mT).mT


def _transform(x: Tensor) -> Tensor:
    """Along the last axis (Makhoul, IEEE Trans. ASSP 1980): even samples forwards, then odd ones backwards."""
    size = x.shape[-1]
    spectrum = torch.fft.rfft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)) * _twiddles(size, x.dtype, x.device)
    values = torch.cat([spectrum.real, -spectrum.imag[..., 1 : (size + 1) // 2].flip(-1)], -1)
    return values * _scales(size, x.dtype, x.device)


def _inverse(coefficients: Tensor) -> Tensor:
    size, half = coefficients.shape[-1], coefficients.shape[-1] // 2 + 1
    values = coefficients / _scales(size, coefficients.dtype, coefficients.device)
    mirrored = torch.cat([torch.zeros_like(values[..., :1]), values[..., 1:].flip(-1)], -1)
    spectrum = torch.complex(values[..., :half], -mirrored[..., :half])
    spectrum = spectrum * _twiddles(size, coefficients.dtype, coefficients.device).conj()
    ordered = torch.fft.irfft(spectrum, size)
    x = torch.empty_like(ordered)
    x[..., ::2] = ordered[..., : (size + 1) // 2]
    x[..., 1::2] = ordered[..., (size + 1) // 2 :].flip(-1)
    return x


@lru_cache(maxsize=16)
def _twiddles(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """exp(-i pi k / (2 size)) for k = 0 ... size // 2."""
    with torch.inference_mode(False):
        angles = torch.arange(size // 2 + 1, dtype=torch.float64) * (-pi / (2 * size))
        return torch.polar(torch.ones_like(angles), angles).to(dtype.to_complex()).to(device)


@lru_cache(maxsize=16)
def _scales(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What makes the transform orthonormal: the length of each cosine, inverted."""
    with torch.inference_mode(False):
        scales = torch.full((size,), sqrt(2 / size), dtype=torch.float64)
        scales[0] = sqrt(1 / size)
        return scales.to(dtype).to(device)


@lru_cache(maxsize=8)
def _gains(operator: CosineConvolution, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What the convolution multiplies each cosine (H, W) with; 0 where it counts as lost."""
    rows, columns = operator.kernel_shape
    kernel = np.frombuffer(operator.kernel_bytes).reshape(rows, columns)
    gains = _cosines(rows, height).T @ kernel @ _cosines(columns, width)
    gains[np.abs(gains) < max(operator.threshold, NUMERICALLY_ZERO) * np.abs(gains).max()] = 0
    with torch.inference_mode(False):
        return torch.from_numpy(gains).to(dtype).to(device)


def _cosines(taps: int, size: int) -> Matrix:
    """cos(pi k a / size) for the offset a of each of the ``taps`` and each frequency k."""
    offsets = np.arange(taps) - taps // 2
    return np.asarray(np.cos(np.outer(offsets, np.arange(size)) * (pi / size)))
