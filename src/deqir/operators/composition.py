"""Operators applied one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

from torch import Tensor

from deqir.errors import ShapeError
from deqir.operators.base import DecomposableOperator, LinearOperator, Shape, working
from deqir.operators.denoising import Denoising
from deqir.operators.inpainting import Inpainting
from deqir.operators.iterative import IterativeOperator
from deqir.operators.least_squares import STANDARD, LeastSquares


def compose(outer: LinearOperator, inner: LinearOperator) -> LinearOperator:
    """The operator that applies ``inner`` and then ``outer``; ``outer @ inner`` is the same.

    The pseudo-inverse is in closed form, and the operator decomposable where the outer one is, when

    - one of the two is ``Denoising``, the identity, or both are ``Inpainting``, whose masks multiply;
    - the inner operator's rows are orthogonal and of one norm, ``B B^T = c I`` (its ``row_gain``): average
      super-resolution of multiples of its scale, colorization, compressed sensing. Then ``(AB)+ = B+ A+``;
    - the outer operator is ``Colorization`` and the inner one treats all channels alike: the two commute, and the
      case before applies.

    Any other composition solves for it with ``LeastSquares``; ``pinv_is_exact`` tells. The product ``B+ A+`` of
    DDNM (arXiv 2212.00490, sec. 3.2) is not used there, as it is not the pseudo-inverse of AB.
    """
    if isinstance(inner, Denoising):
        return outer
    if isinstance(outer, Denoising):
        return inner
    if isinstance(outer, Inpainting) and isinstance(inner, Inpainting):
        return Inpainting(outer.mask * inner.mask)
    if outer.acts_per_pixel and inner.acts_per_channel:
        outer, inner = inner, outer
    if inner.row_gain is None:
        return IterativeComposition(outer, inner)
    if isinstance(outer, DecomposableOperator):
        return DecomposableComposition(outer, inner)
    return RowOrthogonalComposition(outer, inner)


@dataclass(frozen=True, eq=False)
class Composition(LinearOperator):
    """``inner``, then ``outer``; made by ``compose``, which chooses how the pseudo-inverse is found."""

    outer: LinearOperator
    inner: LinearOperator

    def forward(self, x: Tensor) -> Tensor:
        return self.outer.forward(self.inner.forward(working(x))).to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(working(y))).to(y.dtype)

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        return self.inner.image_shape(self.outer.image_shape(observation_shape))

    def observation_shape(self, shape: Shape) -> tuple[int, ...]:
        return self.outer.observation_shape(self._between(shape))

    def at(self, shape: Shape) -> LinearOperator:
        return compose(self.outer.at(self._between(shape)), self.inner.at(shape))

    def repeated(self, count: int) -> LinearOperator:
        return compose(self.outer.repeated(count), self.inner.repeated(count))

    @property
    def row_gain(self) -> float | None:
        outer, inner = self.outer.row_gain, self.inner.row_gain
        return None if outer is None or inner is None else outer * inner

    @property
    def acts_per_channel(self) -> bool:
        return self.outer.acts_per_channel and self.inner.acts_per_channel

    @property
    def acts_per_pixel(self) -> bool:
        return self.outer.acts_per_pixel and self.inner.acts_per_pixel

    def _between(self, shape: Shape) -> Shape:
        """The shape of what the inner operator hands to the outer one."""
        between = self.inner.at(shape).observation_shape(shape)
        if len(between) != 3:
            raise ShapeError(
                f"{type(self.inner).__name__} gives observations of shape {between}, which are no images; "
                f"apply {type(self.outer).__name__} before it"
            )
        return (between[0], between[1], between[2])


@dataclass(frozen=True, eq=False)
class RowOrthogonalComposition(Composition):
    """A composition whose inner operator has ``B B^T = c I``, so that ``(AB)+ = B+ A+ = B^T A+ / c``."""

    @property
    def pinv_is_exact(self) -> bool:
        return self.outer.pinv_is_exact

    def pinv(self, y: Tensor) -> Tensor:
        return self.inner.pinv(self.outer.pinv(working(y))).to(y.dtype)

    def range_projection(self, x: Tensor) -> Tensor:
        seen = self.outer.range_projection(self.inner.forward(working(x)))
        return self.inner.pinv(seen).to(x.dtype)


@dataclass(frozen=True, eq=False)
class DecomposableComposition(Composition, DecomposableOperator):
    """The same with ``A = U diag(s) V^T``: ``AB = U diag(sqrt(c) s) (B^T V / sqrt(c))^T``."""

    @property
    def _gain(self) -> float:
        gain = self.inner.row_gain
        assert gain is not None
        return sqrt(gain)

    @property
    def _decomposed(self) -> DecomposableOperator:
        assert isinstance(self.outer, DecomposableOperator)
        return self.outer

    def singular_values(self, like: Tensor) -> Tensor:
        return self._decomposed.singular_values(like) * self._gain

    def V(self, coefficients: Tensor) -> Tensor:
        return self.inner.adjoint(self._decomposed.V(coefficients)) / self._gain

    def V_adjoint(self, x: Tensor) -> Tensor:
        return self._decomposed.V_adjoint(self.inner.forward(working(x)) / self._gain)

    def U(self, coefficients: Tensor) -> Tensor:
        return self._decomposed.U(coefficients)

    def U_adjoint(self, y: Tensor) -> Tensor:
        return self._decomposed.U_adjoint(y)


@dataclass(frozen=True, eq=False)
class IterativeComposition(Composition, IterativeOperator):
    """A composition without a closed form: the pseudo-inverse is solved for by ``least_squares``."""

    least_squares: LeastSquares = STANDARD

    def at(self, shape: Shape) -> LinearOperator:
        return self._as_accurate(super().at(shape))

    def repeated(self, count: int) -> LinearOperator:
        return self._as_accurate(super().repeated(count))

    def _as_accurate(self, other: LinearOperator) -> LinearOperator:
        return replace(other, least_squares=self.least_squares) if isinstance(other, IterativeComposition) else other
