"""Linear forward operators with exact adjoints and Moore-Penrose pseudo-inverses."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from deqir.errors import OptionError, ShapeError

Shape = tuple[int, int, int]


class LinearOperator(ABC):
    """A linear map A from images (B, C, H, W) to observations (B, ...).

    Everything is batched and follows the dtype and the device of its argument. Half-precision arguments are computed
    with in float32 and the result is given back in their dtype. ``pinv`` is exact to rounding where ``pinv_is_exact``,
    else solved for to a tolerance. ``A @ B`` is the operator that applies B first.
    An operator may serve many image sizes; ``at`` fixes one where the observation alone does not tell it.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x. ``x`` is (B, C, H, W)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """The transpose of A applied to ``y``, an image (B, C, H, W)."""

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """The Moore-Penrose pseudo-inverse of A applied to ``y``, an image (B, C, H, W)."""

    @abstractmethod
    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        """(C, H, W) of the image behind one observation of shape ``observation_shape`` (no batch axis).

        Raises ShapeError where no image of this operator has such an observation.
        """

    def at(self, shape: Shape) -> LinearOperator:
        """This operator for images of ``shape`` (C, H, W) alone. Raises ShapeError where it does not fit."""
        return self

    def observation_shape(self, shape: Shape) -> tuple[int, ...]:
        """The shape of the observation of one image of ``shape`` (C, H, W), both without the batch axis."""
        return tuple(self.at(shape).forward(torch.zeros(1, *shape)).shape[1:])

    @property
    def pinv_is_exact(self) -> bool:
        """Whether ``pinv`` is a closed form; where not, it is iterated to a tolerance (``IterativeOperator``)."""
        return True

    @property
    def row_gain(self) -> float | None:
        """c where ``A A^T = c I`` for every image the operator serves, its rows orthogonal; None where not known."""
        return None

    @property
    def acts_per_channel(self) -> bool:
        """Whether every channel is observed alike and apart from the others, however many there are."""
        return False

    @property
    def acts_per_pixel(self) -> bool:
        """Whether every pixel is observed alike and apart from the others, however many there are."""
        return False

    def __matmul__(self, inner: LinearOperator) -> LinearOperator:
        """``A @ B``: first B, then A (see ``deqir.operators.compose``)."""
        from deqir.operators.composition import compose

        return compose(self, inner) if isinstance(inner, LinearOperator) else NotImplemented

    def range_projection(self, x: Tensor) -> Tensor:
        """Q x = A+ A x, the part of ``x`` (B, C, H, W) that the observation determines."""
        return self.pinv(self.forward(x))

    def repeated(self, count: int) -> LinearOperator:
        """The operator for a batch of ``count`` copies of its own, as ``x.repeat(count, 1, 1, 1)`` lays them out.

        Only operators with parameters per image (masks) differ from themselves here.
        """
        return self

    def as_matrix(self, shape: Shape, dtype: torch.dtype = torch.float64) -> Tensor:
        """A as a dense matrix for images of ``shape`` (C, H, W), (observation numel, image numel). For tests."""
        size = shape[0] * shape[1] * shape[2]
        basis = torch.eye(size, dtype=dtype).reshape(size, *shape)
        columns = torch.cat([self.at(shape).forward(image[None]) for image in basis])
        return columns.flatten(1).T


class DecomposableOperator(LinearOperator):
    """A linear operator with a known thin singular value decomposition ``A = U diag(s) V^T``.

    ``V_adjoint`` takes an image to its coefficients and ``U_adjoint`` an observation to its coefficients, both of one
    shape; ``singular_values`` broadcasts against them. A singular value of zero marks a direction that A does not
    see. Coefficients may be complex (Fourier); U and V then stand for isometries on their real images.
    Coefficients of half-precision images are float32 (or complex64), and ``U`` and ``V`` answer in the precision of
    the coefficients; ``forward``, ``adjoint``, ``pinv`` and ``range_projection`` in the dtype of their argument.
    """

    @abstractmethod
    def singular_values(self, like: Tensor) -> Tensor:
        """s >= 0, real, broadcastable against the ``like`` coefficients, on their device and in their precision."""

    @abstractmethod
    def V(self, coefficients: Tensor) -> Tensor:
        """Coefficients to image (B, C, H, W)."""

    @abstractmethod
    def V_adjoint(self, x: Tensor) -> Tensor:
        """Image (B, C, H, W) to coefficients."""

    @abstractmethod
    def U(self, coefficients: Tensor) -> Tensor:
        """Coefficients to observation."""

    @abstractmethod
    def U_adjoint(self, y: Tensor) -> Tensor:
        """Observation to coefficients."""

    def forward(self, x: Tensor) -> Tensor:
        coefficients = self.V_adjoint(x)
        return self.U(coefficients * self.singular_values(coefficients)).to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        coefficients = self.U_adjoint(y)
        return self.V(coefficients * self.singular_values(coefficients)).to(y.dtype)

    def pinv(self, y: Tensor) -> Tensor:
        coefficients = self.U_adjoint(y)
        return self.V(coefficients * inverse_or_zero(self.singular_values(coefficients))).to(y.dtype)

    def range_projection(self, x: Tensor) -> Tensor:
        coefficients = self.V_adjoint(x)
        return self.V(coefficients * (self.singular_values(coefficients) > 0)).to(x.dtype)


def inverse_or_zero(values: Tensor) -> Tensor:
    """1 / values where they are above zero, else 0."""
    positive = values > 0
    return torch.where(positive, 1 / torch.where(positive, values, 1), 0)


def working(x: Tensor) -> Tensor:
    """``x`` in the precision it is computed with: float32 for float16 and bfloat16, else its own."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def require_image(x: Tensor, channels: int | None = None) -> None:
    """Raise unless ``x`` is a floating-point (B, C, H, W) with ``channels`` channels (None: any).

    ShapeError for the shape, OptionError for the dtype.
    """
    if x.ndim != 4:
        raise ShapeError(
            f"the image tensor has shape {tuple(x.shape)}; give one of shape (batch, channels, height, width)"
        )
    require_floating(x, "image")
    if channels is not None and x.shape[1] != channels:
        raise ShapeError(f"the image has {x.shape[1]} channels; give one with {channels}, as the operator needs")


def require_observation(y: Tensor, axes: str = "(batch, channels, height, width)") -> None:
    """Raise unless the observation ``y`` is floating-point with the comma-separated ``axes``.

    ShapeError for the number of axes, OptionError for the dtype.
    """
    if y.ndim != axes.count(",") + 1:
        raise ShapeError(f"the observation has shape {tuple(y.shape)}; give one of shape {axes}")
    require_floating(y, "observation")


def require_floating(x: Tensor, name: str) -> None:
    """Raise OptionError unless ``x`` is real floating-point."""
    if not x.is_floating_point():
        raise OptionError(f"the {name} tensor has dtype {x.dtype}; convert it to a floating-point dtype first")
