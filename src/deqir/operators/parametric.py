"""Operators whose parameters can be differentiated: a soft mask and a blur kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.operators.base import DecomposableOperator, Shape, require_image, require_observation, working


@dataclass(frozen=True, eq=False)
class SoftMask(DecomposableOperator):
    """Every pixel multiplied by a weight: image and observation are both (B, C, H, W).

    ``weights`` is (H, W), (C, H, W) or (1, 1 | C, H, W), any finite numbers; it may require gradients. A weight of zero
    hides a pixel, and no gradient reaches it. Raises ShapeError for other shapes, OptionError where all are zero and
    NonFiniteError for NaN.
    """

    weights: Tensor

    def __post_init__(self) -> None:
        if self.weights.ndim not in (2, 3, 4) or (self.weights.ndim == 4 and len(self.weights) != 1):
            shape = tuple(self.weights.shape)
            raise ShapeError(f"the soft mask has shape {shape}; give (H, W), (C, H, W) or (1, C, H, W)")
        if not bool(self.weights.isfinite().all()):
            raise NonFiniteError("the soft mask holds NaN or infinite values; give finite weights")
        if not bool(self.weights.any()):
            raise OptionError("the soft mask is zero everywhere, so nothing is observed; give some other weights")

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        if len(observation_shape) != 3:
            raise ShapeError(f"one observation has shape {observation_shape}; give one of (channels, height, width)")
        shape = (observation_shape[0], observation_shape[1], observation_shape[2])
        self.at(shape)
        return shape

    def at(self, shape: Shape) -> SoftMask:
        own = self.weights.shape
        channels = own[-3] if self.weights.ndim > 2 else 1
        if own[-2:] != shape[1:] or channels not in (1, shape[0]):
            raise ShapeError(f"the soft mask is {tuple(own)} but the image is {shape}; give a mask of the image's size")
        return self

    @property
    def acts_per_channel(self) -> bool:
        return self.weights.ndim == 2 or self.weights.shape[-3] == 1

    def singular_values(self, like: Tensor) -> Tensor:
        return self.weights.abs().to(like)

    def V(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def V_adjoint(self, x: Tensor) -> Tensor:
        require_image(x)
        self.at((x.shape[1], x.shape[2], x.shape[3]))
        return working(x)

    def U(self, coefficients: Tensor) -> Tensor:
        return coefficients * self._signs(coefficients)

    def U_adjoint(self, y: Tensor) -> Tensor:
        require_observation(y)
        values = self.V_adjoint(y)
        return values * self._signs(values)

    def _signs(self, like: Tensor) -> Tensor:
        return torch.where(self.weights < 0, -1.0, 1.0).to(like)


@dataclass(frozen=True, eq=False)
class ParametricBlur(DecomposableOperator):
    """Circular convolution with a ``kernel`` (kh, kw) that may require gradients; it is used as it is, not normalised.

    Image and observation are both (B, C, H, W). Otherwise it is ``Deblurring`` with a circular boundary: centred at
    (kh // 2, kw // 2), and singular values below ``threshold`` times the largest are zero in the operator and in its
    pseudo-inverse. Raises ShapeError for a kernel that is not 2-D or larger than the image, OptionError for a threshold
    outside [0, 1) and NonFiniteError for NaN.
    """

    kernel: Tensor
    threshold: float = 0.03

    def __post_init__(self) -> None:
        if self.kernel.ndim != 2 or self.kernel.numel() == 0:
            raise ShapeError(f"the blur kernel has shape {tuple(self.kernel.shape)}; give one of shape (height, width)")
        if not bool(self.kernel.isfinite().all()):
            raise NonFiniteError("the blur kernel holds NaN or infinite values; give finite ones")
        if not 0 <= self.threshold < 1:
            raise OptionError(f"the threshold is {self.threshold}; give a number from 0 up to, not including, 1")

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        if len(observation_shape) != 3:
            raise ShapeError(f"one observation has shape {observation_shape}; give one of (channels, height, width)")
        return (observation_shape[0], observation_shape[1], observation_shape[2])

    def at(self, shape: Shape) -> ParametricBlur:
        if any(taps > size for taps, size in zip(self.kernel.shape, shape[1:], strict=True)):
            raise ShapeError(f"the blur kernel {tuple(self.kernel.shape)} is larger than the image {shape[1:]}")
        return self

    @property
    def acts_per_channel(self) -> bool:
        return True

    def singular_values(self, like: Tensor) -> Tensor:
        magnitude = _modulus(self._transfer(like))
        return torch.where(self._kept(magnitude), magnitude, 0)

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
        coefficients = self.V_adjoint(y)
        return coefficients * self._phase(coefficients).conj()

    def _transfer(self, like: Tensor) -> Tensor:
        """The kernel's transfer function (H, W), complex, for coefficients like ``like``."""
        height, width = like.shape[-2:]
        self.at((1, height, width))
        rows, columns = self.kernel.shape
        padded = torch.nn.functional.pad(self.kernel.to(like.real), (0, width - columns, 0, height - rows))
        transfer: Tensor = torch.fft.fft2(padded.roll((-(rows // 2), -(columns // 2)), (0, 1)))
        # Exactly conjugate-symmetric: else rounding could truncate one of a pair of frequencies.
        return (transfer + transfer.flip(0, 1).roll((1, 1), (0, 1)).conj()) / 2

    def _phase(self, like: Tensor) -> Tensor:
        transfer = self._transfer(like)
        magnitude = _modulus(transfer)
        kept = self._kept(magnitude)
        return torch.where(kept, transfer / torch.where(kept, magnitude, 1), 1)

    def _kept(self, magnitude: Tensor) -> Tensor:
        floor = max(self.threshold, 100 * torch.finfo(magnitude.dtype).eps)
        return magnitude.detach() >= floor * magnitude.detach().max()


def _modulus(values: Tensor) -> Tensor:
    """|z|, with a gradient of zero instead of NaN at zero."""
    squares = values.real.square() + values.imag.square()
    return torch.where(squares > 0, torch.where(squares > 0, squares, 1).sqrt(), 0)
