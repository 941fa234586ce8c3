"""An operator for images of one channel, applied to every channel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from deqir.errors import ShapeError
from deqir.operators.base import DecomposableOperator, LinearOperator, Shape, require_image


@dataclass(frozen=True, eq=False)
class PerChannel(LinearOperator):
    """``single``, an operator for images (1, H, W), on each channel of images of ``shape`` (C, H, W).

    One observation is (C, ...): those of the channels, stacked, without the leading axis of 1 that theirs may have.
    """

    single: LinearOperator
    shape: Shape
    copies: int = 1

    def forward(self, x: Tensor) -> Tensor:
        return self._together(self._spread.forward(self._apart(x)))

    def adjoint(self, y: Tensor) -> Tensor:
        return self._together(self._spread.adjoint(self._apart_observation(y)))

    def pinv(self, y: Tensor) -> Tensor:
        return self._together(self._spread.pinv(self._apart_observation(y)))

    def range_projection(self, x: Tensor) -> Tensor:
        return self._together(self._spread.range_projection(self._apart(x)))

    @property
    def pinv_is_exact(self) -> bool:
        return self.single.pinv_is_exact

    @property
    def row_gain(self) -> float | None:
        return self.single.row_gain

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        expected = self.observation_shape(self.shape)
        if tuple(observation_shape) != expected:
            raise ShapeError(f"one observation has shape {tuple(observation_shape)}; give one of {expected}")
        return self.shape

    def observation_shape(self, shape: Shape) -> tuple[int, ...]:
        self.at(shape)
        return (self.shape[0], *(self._measured[1:] if self._measured[0] == 1 else self._measured))

    def at(self, shape: Shape) -> LinearOperator:
        if shape == self.shape:
            return self
        return at_fixed_shape(self.single, (1, *self.shape[1:]), shape)

    def repeated(self, count: int) -> PerChannel:
        return replace(self, copies=self.copies * count)

    @cached_property
    def _measured(self) -> tuple[int, ...]:
        return self.single.observation_shape((1, *self.shape[1:]))

    @cached_property
    def _spread(self) -> LinearOperator:
        """``single`` for the batch that ``_apart`` makes: the images of all channels, one channel after the other."""
        return self.single.repeated(self.shape[0] * self.copies)

    def _apart(self, x: Tensor) -> Tensor:
        require_image(x)
        if tuple(x.shape[1:]) != self.shape:
            raise ShapeError(f"the image has shape {tuple(x.shape[1:])}; the operator was made for {self.shape}")
        return x.transpose(0, 1).reshape(-1, 1, *self.shape[1:])

    def _apart_observation(self, y: Tensor) -> Tensor:
        self.image_shape(tuple(y.shape[1:]))
        return y.transpose(0, 1).reshape(-1, *self._measured)

    def _together(self, x: Tensor) -> Tensor:
        """(C * B, 1, ...) or (C * B, ...) to (B, C, ...)."""
        rest = x.shape[2:] if x.shape[1] == 1 else x.shape[1:]
        return x.reshape(self.shape[0], -1, *rest).transpose(0, 1)


@dataclass(frozen=True, eq=False)
class DecomposablePerChannel(PerChannel, DecomposableOperator):
    """``PerChannel`` of a decomposable operator; coefficients are those of the channels, one after the other."""

    def _decomposable(self) -> DecomposableOperator:
        assert isinstance(self._spread, DecomposableOperator)
        return self._spread

    def singular_values(self, like: Tensor) -> Tensor:
        return self._decomposable().singular_values(like)

    def V(self, coefficients: Tensor) -> Tensor:
        return self._together(self._decomposable().V(coefficients))

    def V_adjoint(self, x: Tensor) -> Tensor:
        return self._decomposable().V_adjoint(self._apart(x))

    def U(self, coefficients: Tensor) -> Tensor:
        return self._together(self._decomposable().U(coefficients))

    def U_adjoint(self, y: Tensor) -> Tensor:
        return self._decomposable().U_adjoint(self._apart_observation(y))


def at_fixed_shape(operator: LinearOperator, own: Shape, shape: Shape) -> LinearOperator:
    """``operator``, which serves images of shape ``own`` alone, for images of ``shape``.

    One for a single channel is applied to each of theirs. Raises ShapeError where that does not fit either.
    """
    shape = (shape[0], shape[1], shape[2])
    if shape == own:
        return operator
    if own[0] != 1 or own[1:] != shape[1:]:
        raise ShapeError(f"the image has shape {shape}; the operator was made for {own}, make one for that shape")
    kind = DecomposablePerChannel if isinstance(operator, DecomposableOperator) else PerChannel
    return kind(operator, shape)
