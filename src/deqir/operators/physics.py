"""A deepinv ``LinearPhysics`` as an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from deqir.errors import OptionError, ShapeError
from deqir.operators.base import DecomposableOperator, LinearOperator, Shape, require_floating, require_image, working
from deqir.operators.channels import at_fixed_shape
from deqir.operators.checks import image_shape_or_error
from deqir.operators.iterative import IterativeOperator
from deqir.operators.least_squares import STANDARD, LeastSquares
from deqir.operators.packing import Packing

# Relative to the largest: deepinv's singular values carry float32 rounding, and its A_dagger drops those below 1e-5.
NEGLIGIBLE_SINGULAR_VALUE = 1e-5


def physics_operator(physics: Any, shape: Shape | None = None, observation: Any = None) -> LinearOperator:
    """The operator of a deepinv ``LinearPhysics``; its noise and sensor models are left out.

    A ``DecomposablePhysics`` keeps its singular value decomposition, of which values below 1e-5 of the largest are
    zero in the operator as in its pseudo-inverse. For any other the pseudo-inverse is solved for by ``LeastSquares``:
    deepinv's own ``A_dagger`` stops earlier, and is another reconstruction for some (filtered back-projection,
    Brovey). It computes in the precision of the physics' buffers (``physics.double()`` for float64) and on the device
    of its argument. Observations that are complex become real with a last axis of 2, those that are a TensorList one
    row of numbers; for these ``shape`` (C, H, W) or an example ``observation`` (B, ...) is needed.

    Raises OptionError for a physics that is not linear or lacks its mask, ShapeError where it has no images (C, H, W).
    """
    import deepinv

    if not isinstance(physics, deepinv.physics.LinearPhysics):
        raise OptionError(f"{type(physics).__name__} is not linear; give a deepinv LinearPhysics")
    own = getattr(physics, "deqir_operator", None)
    if isinstance(own, LinearOperator):
        return own if shape is None else own.at(shape)
    decomposable = isinstance(physics, deepinv.physics.DecomposablePhysics)
    if decomposable and physics.mask is None:
        raise OptionError(f"{type(physics).__name__} has no parameters yet; set them with physics.update(...)")
    known = None if shape is None else image_shape_or_error(shape)
    if observation is None and known is not None:
        observation = _probe(physics, known)
    packing = Packing() if observation is None else Packing.of(observation)
    kind = DecomposablePhysicsOperator if decomposable else PhysicsOperator
    return kind(physics, packing, known)


def _probe(physics: Any, shape: Shape) -> Any:
    image = torch.zeros(_batch(physics), *shape, dtype=_precision(physics), device=_device(physics))
    return _tried(physics.A, image, f"{type(physics).__name__} does not take images of shape {shape}")


def _tried(function: Callable[[Tensor], Any], x: Tensor, refusal: str) -> Any:
    """``function(x)``; what deepinv raises where the shape does not fit becomes a ShapeError."""
    try:
        with torch.no_grad():
            return function(x)
    except (torch.OutOfMemoryError, ShapeError):
        raise
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        raise ShapeError(f"{refusal} ({error}); give what it was made for") from error


@dataclass(frozen=True, eq=False)
class _Physics(LinearOperator):
    """What both kinds share: calls in the precision of the physics, on the device of the argument, batch by batch.

    ``shape`` None serves images of any size that the physics takes.
    """

    physics: Any
    packing: Packing
    shape: Shape | None = None
    copies: int = 1
    _moved: dict[torch.device, Any] = field(init=False, repr=False, default_factory=dict)

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        y = torch.zeros(_batch(self.physics), *observation_shape, device=_device(self.physics))
        refusal = f"{type(self.physics).__name__} has no observations of shape {tuple(observation_shape)}"
        image = _tried(self.adjoint, y, refusal)
        return (image.shape[1], image.shape[2], image.shape[3])

    def observation_shape(self, shape: Shape) -> tuple[int, ...]:
        images = torch.zeros(_batch(self.physics), *shape, device=_device(self.physics))
        return tuple(self.at(shape).forward(images).shape[1:])

    def at(self, shape: Shape) -> LinearOperator:
        return replace(self, shape=shape) if self.shape is None else at_fixed_shape(self, self.shape, shape)

    def repeated(self, count: int) -> LinearOperator:
        return replace(self, copies=self.copies * count) if _batch(self.physics) > 1 else self

    def _observe(self, function: Callable[[Any, Tensor], Any], x: Tensor) -> Tensor:
        return self._call(lambda physics, part: self.packing.pack(function(physics, part)), x)

    def _back(self, function: Callable[[Any, Any], Tensor], y: Tensor) -> Tensor:
        require_floating(y, "observation")
        return self._call(lambda physics, part: function(physics, self.packing.unpack(part)), y)

    def _call(self, function: Callable[[Any, Tensor], Tensor], x: Tensor) -> Tensor:
        """``function(physics, x)`` on each copy of the batch, in the precision of the physics, answered in x's."""
        physics = self._on(x.device)
        x, dtype = _in(x, _precision(physics)), working(x).dtype
        if self.copies == 1:
            return _in(function(physics, x), dtype)
        return _in(torch.cat([function(physics, part) for part in x.chunk(self.copies)]), dtype)

    def _on(self, device: torch.device) -> Any:
        """The physics on ``device``: itself, or a copy that is made once."""
        if all(tensor.device == device for tensor in _tensors(self.physics)):
            return self.physics
        if device not in self._moved:
            moved = self.physics.clone()
            for part in _parts(moved):
                part.to(device)
            self._moved[device] = moved
        return self._moved[device]

    def _checked_image(self, x: Tensor) -> Tensor:
        require_image(x)
        if self.shape not in (None, tuple(x.shape[1:])):
            raise ShapeError(f"the image has shape {tuple(x.shape[1:])}; the operator was made for {self.shape}")
        return x

    def _checked_result(self, image: Tensor) -> Tensor:
        if image.ndim != 4 or not image.is_floating_point() or self.shape not in (None, tuple(image.shape[1:])):
            raise ShapeError(
                f"{type(self.physics).__name__} makes {image.dtype} images of shape {tuple(image.shape)} from the "
                f"observation; deqir takes real ones of (batch, {', '.join(map(str, self.shape or 'CHW'))})"
            )
        return image


@dataclass(frozen=True, eq=False)
class PhysicsOperator(_Physics, IterativeOperator):
    """A deepinv physics known by its ``A`` and ``A_adjoint``; make one with ``physics_operator``."""

    least_squares: LeastSquares = STANDARD

    def forward(self, x: Tensor) -> Tensor:
        return self._observe(lambda physics, part: physics.A(part), self._checked_image(x)).to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._checked_result(self._back(lambda physics, part: physics.A_adjoint(part), y)).to(y.dtype)


@dataclass(frozen=True, eq=False)
class DecomposablePhysicsOperator(_Physics, DecomposableOperator):
    """A deepinv physics with its singular value decomposition; make one with ``physics_operator``.

    The phase of its ``mask``, where it is not real and positive, belongs to U.
    """

    def singular_values(self, like: Tensor) -> Tensor:
        magnitude = self._mask(like).abs().to(like.dtype.to_real())
        return torch.where(magnitude >= NEGLIGIBLE_SINGULAR_VALUE * magnitude.max(), magnitude, 0)

    def V(self, coefficients: Tensor) -> Tensor:
        return self._checked_result(self._call(lambda physics, part: physics.V(part), coefficients))

    def V_adjoint(self, x: Tensor) -> Tensor:
        return self._call(lambda physics, part: physics.V_adjoint(part), self._checked_image(x))

    def U(self, coefficients: Tensor) -> Tensor:
        return self._observe(lambda physics, part: physics.U(part), coefficients * self._phase(coefficients))

    def U_adjoint(self, y: Tensor) -> Tensor:
        coefficients = self._back(lambda physics, part: physics.U_adjoint(part), y)
        return coefficients * self._phase(coefficients).conj()

    def _mask(self, like: Tensor) -> Tensor:
        mask: Tensor = self._on(like.device).mask
        return mask.repeat(self.copies, *(1,) * (mask.ndim - 1)) if len(mask.shape) and len(mask) > 1 else mask

    def _phase(self, like: Tensor) -> Tensor:
        return _in(torch.sgn(self._mask(like)), like.dtype.to_real())


def _in(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` in the real ``dtype``, or its complex counterpart where it is complex."""
    return x.to(dtype.to_complex() if x.is_complex() else dtype)


def _parts(physics: Any) -> list[Any]:
    """The physics and those it is stacked from, which deepinv holds in a list that torch does not look into."""
    return [physics, *getattr(physics, "physics_list", [])]


def _tensors(physics: Any) -> list[Tensor]:
    return [tensor for part in _parts(physics) for tensor in (*part.buffers(), *part.parameters())]


def _device(physics: Any) -> torch.device:
    return next((tensor.device for tensor in _tensors(physics)), torch.device("cpu"))


def _precision(physics: Any) -> torch.dtype:
    """The widest real dtype among the tensors of a physics, float32 at least."""
    dtype = torch.float32
    for tensor in _tensors(physics):
        if tensor.is_floating_point():
            dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _batch(physics: Any) -> int:
    """For how many images the physics has parameters, masks or filters (B, C, H, W) say; 1 where they share them."""
    return max((len(tensor) for tensor in _tensors(physics) if tensor.ndim >= 4), default=1)
