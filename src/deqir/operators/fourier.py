"""Circular convolution with any kernel, diagonal in the Fourier basis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deqir.operators.base import (
    DecomposableOperator,
    Shape,
    inverse_or_zero,
    require_image,
    require_observation,
    working,
)
from deqir.operators.boundaries import fold
from deqir.operators.separable import NUMERICALLY_ZERO, Matrix

Response = Literal["forward", "adjoint", "pinv", "range"]


@dataclass(frozen=True)
class FourierConvolution(DecomposableOperator):
    """Circular convolution with a kernel of ``kernel_shape``, its float64 values row by row in ``kernel_bytes``.

    V is the orthonormal inverse Fourier transform, s the magnitude of the kernel's transfer function and U the
    inverse transform after a multiplication with its phase. Magnitudes below ``threshold`` times the largest are
    zero. Coefficients are the complex (B, C, H, W) of the full transform, so that V_adjoint is an isometry.
    """

    kernel_bytes: bytes
    kernel_shape: tuple[int, int]
    threshold: float

    @classmethod
    def of(cls, kernel: Matrix, threshold: float) -> FourierConvolution:
        """The convolution with the 2-D ``kernel``, centred at (kh // 2, kw // 2)."""
        return cls(np.ascontiguousarray(kernel).tobytes(), (kernel.shape[0], kernel.shape[1]), threshold)

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        return (observation_shape[0], observation_shape[1], observation_shape[2])

    @property
    def acts_per_channel(self) -> bool:
        return True

    def singular_values(self, like: Tensor) -> Tensor:
        return _cast_spectrum(self, like.shape[-2], like.shape[-1], like.dtype.to_real(), like.device).magnitude

    def V(self, coefficients: Tensor) -> Tensor:
        image: Tensor = torch.fft.ifft2(coefficients, norm="ortho").real
        return image

    def V_adjoint(self, x: Tensor) -> Tensor:
        require_image(x)
        coefficients: Tensor = torch.fft.fft2(working(x), norm="ortho")
        return coefficients

    def U(self, coefficients: Tensor) -> Tensor:
        return self.V(coefficients * self._phase(coefficients))

    def U_adjoint(self, y: Tensor) -> Tensor:
        require_observation(y)
        coefficients: Tensor = torch.fft.fft2(working(y), norm="ortho")
        return coefficients * self._phase(coefficients).conj()

    # The same maps as the decomposition gives, with the half-size transforms of real images.
    def forward(self, x: Tensor) -> Tensor:
        require_image(x)
        return self._filtered(x, "forward")

    def adjoint(self, y: Tensor) -> Tensor:
        require_observation(y)
        return self._filtered(y, "adjoint")

    def pinv(self, y: Tensor) -> Tensor:
        require_observation(y)
        return self._filtered(y, "pinv")

    def range_projection(self, x: Tensor) -> Tensor:
        require_image(x)
        return self._filtered(x, "range")

    def _phase(self, like: Tensor) -> Tensor:
        return _cast_spectrum(self, like.shape[-2], like.shape[-1], like.dtype.to_real(), like.device).phase

    def _filtered(self, x: Tensor, response: Response) -> Tensor:
        values = working(x)
        height, width = x.shape[-2:]
        transfer = _half_response(self, response, height, width, values.dtype, values.device)
        filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(values) * transfer, s=(height, width))
        return filtered.to(x.dtype)


class Spectrum(NamedTuple):
    """A transfer function (H, W): phase, complex of modulus 1, and magnitude, truncated."""

    phase: Tensor
    magnitude: Tensor


@lru_cache(maxsize=4)
def _exact_spectrum(operator: FourierConvolution, height: int, width: int) -> Spectrum:
    kernel_height, kernel_width = operator.kernel_shape
    kernel = np.frombuffer(operator.kernel_bytes).reshape(kernel_height, kernel_width)
    rows = fold(np.arange(kernel_height) - kernel_height // 2, height, "circular")
    columns = fold(np.arange(kernel_width) - kernel_width // 2, width, "circular")
    wrapped = np.zeros((height, width))
    np.add.at(wrapped, (rows[:, None], columns[None, :]), kernel)
    transfer = np.fft.fft2(wrapped)
    # Exactly conjugate-symmetric: else rounding could truncate one of a pair of frequencies and give complex images.
    mirrored = np.roll(transfer[::-1, ::-1], (1, 1), axis=(0, 1))
    transfer = (transfer + mirrored.conj()) / 2
    magnitude = np.hypot(transfer.real, transfer.imag)
    phase = np.where(magnitude > 0, transfer / np.where(magnitude > 0, magnitude, 1), 1)
    magnitude[magnitude < max(operator.threshold, NUMERICALLY_ZERO) * magnitude.max()] = 0
    with torch.inference_mode(False):
        return Spectrum(torch.from_numpy(phase), torch.from_numpy(magnitude))


@lru_cache(maxsize=8)
def _cast_spectrum(
    operator: FourierConvolution, height: int, width: int, dtype: torch.dtype, device: torch.device
) -> Spectrum:
    """The spectrum with the magnitude in the real ``dtype`` and the phase in its complex counterpart."""
    exact = _exact_spectrum(operator, height, width)
    with torch.inference_mode(False):
        return Spectrum(exact.phase.to(dtype.to_complex()).to(device), exact.magnitude.to(dtype).to(device))


@lru_cache(maxsize=16)
def _half_response(
    operator: FourierConvolution, response: Response, height: int, width: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The (H, W // 2 + 1) multiplier for rfft2 that carries out ``response``."""
    with torch.inference_mode(False):
        phase, magnitude = (part[:, : width // 2 + 1] for part in _exact_spectrum(operator, height, width))
        if response == "range":
            return (magnitude > 0).to(dtype).to(device)
        transfer = phase if response == "forward" else phase.conj()
        transfer = transfer * (inverse_or_zero(magnitude) if response == "pinv" else magnitude)
        return transfer.to(dtype.to_complex()).to(device)
