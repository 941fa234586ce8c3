"""Deblurring: the observation is the image, convolved with a known kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.operators.base import DecomposableOperator, Shape
from deqir.operators.boundaries import Boundary
from deqir.operators.convolution import SeparableConvolution, rank_one_factors
from deqir.operators.cosine import CosineConvolution
from deqir.operators.fourier import FourierConvolution


@dataclass(frozen=True, eq=False)
class Deblurring(DecomposableOperator):
    """Convolution of every channel with ``kernel``: image and observation are both (B, C, H, W).

    ``kernel`` (kh, kw) is centred at (kh // 2, kw // 2) and normalised to sum 1; negative values are allowed. It is a
    true convolution, the kernel mirrored: ``y[i] = sum_a kernel[a] x[i - a + centre]``. ``boundary`` says what lies
    outside: "circular" (the image repeats; any kernel, by FFT), "reflect" (mirrored with the edge pixel repeated),
    "zero" or "replicate" (the edge pixel goes on). "reflect" takes kernels that equal both their mirror images (by
    cosine transforms), and all three take separable (rank one) kernels, by dense matrices along each axis.

    Singular values below ``threshold`` times the largest are zero in the operator *and* in its pseudo-inverse: the
    operator is the truncated one, as in DDRM (arXiv 2201.11793, app. D.5). Zero keeps the exact convolution, whose
    pseudo-inverse amplifies noise without bound.

    Raises ShapeError for a kernel that is not 2-D, NonFiniteError for NaN in it, OptionError for one that sums to
    zero, an unknown boundary, a kernel that the boundary does not take, or a threshold outside [0, 1).
    """

    kernel: Tensor
    boundary: Boundary = "circular"
    threshold: float = 0.03
    _convolution: FourierConvolution | CosineConvolution | SeparableConvolution = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.boundary not in get_args(Boundary):
            choices = ", ".join(repr(name) for name in get_args(Boundary))
            raise OptionError(f"the boundary is {self.boundary!r}; choose one of {choices}")
        if not 0 <= self.threshold < 1:
            raise OptionError(f"the threshold is {self.threshold}; give a number from 0 up to, not including, 1")
        object.__setattr__(self, "kernel", _normalised(self.kernel))
        object.__setattr__(self, "_convolution", self._build())

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        if len(observation_shape) != 3:
            raise ShapeError(f"one observation has shape {observation_shape}; give one of (channels, height, width)")
        return self._convolution.image_shape(observation_shape)

    @property
    def acts_per_channel(self) -> bool:
        return True

    def singular_values(self, like: Tensor) -> Tensor:
        return self._convolution.singular_values(like)

    def V(self, coefficients: Tensor) -> Tensor:
        return self._convolution.V(coefficients)

    def V_adjoint(self, x: Tensor) -> Tensor:
        return self._convolution.V_adjoint(x)

    def U(self, coefficients: Tensor) -> Tensor:
        return self._convolution.U(coefficients)

    def U_adjoint(self, y: Tensor) -> Tensor:
        return self._convolution.U_adjoint(y)

    def forward(self, x: Tensor) -> Tensor:
        return self._convolution.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._convolution.adjoint(y)

    def pinv(self, y: Tensor) -> Tensor:
        return self._convolution.pinv(y)

    def range_projection(self, x: Tensor) -> Tensor:
        return self._convolution.range_projection(x)

    def _build(self) -> FourierConvolution | CosineConvolution | SeparableConvolution:
        kernel, threshold = self.kernel.numpy(), float(self.threshold)
        if self.boundary == "circular":
            return FourierConvolution.of(kernel, threshold)
        cosine = CosineConvolution.of(kernel, threshold) if self.boundary == "reflect" else None
        if cosine is not None:
            return cosine
        factors = rank_one_factors(kernel)
        if factors is None:
            kind = "symmetric about its centre or separable" if self.boundary == "reflect" else "separable"
            raise OptionError(
                f"the {kernel.shape[0]}x{kernel.shape[1]} kernel is not {kind}, which boundary {self.boundary!r} "
                "needs; use boundary='circular'"
            )
        return SeparableConvolution(*factors, self.boundary, threshold)


def _normalised(kernel: Tensor) -> Tensor:
    """A float64 copy of ``kernel`` on the CPU, divided by its sum."""
    if kernel.ndim != 2 or kernel.numel() == 0:
        raise ShapeError(f"the blur kernel has shape {tuple(kernel.shape)}; give one of shape (height, width)")
    values = kernel.detach().cpu().to(torch.float64).numpy().copy()
    if not np.isfinite(values).all():
        raise NonFiniteError("the blur kernel holds NaN or infinite values; give finite ones")
    total = values.sum()
    if abs(total) <= 1e-12 * np.abs(values).sum():
        raise OptionError("the blur kernel sums to 0, so it cannot be normalised; give one with a non-zero sum")
    return torch.from_numpy(values / total)
