"""An operator from a user's own function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deqir.errors import OptionError, ShapeError
from deqir.operators.base import LinearOperator, Shape, require_floating, require_image, working
from deqir.operators.channels import at_fixed_shape
from deqir.operators.checks import image_shape_or_error
from deqir.operators.iterative import IterativeOperator
from deqir.operators.least_squares import STANDARD, LeastSquares, Map


@dataclass(frozen=True, eq=False)
class FunctionOperator(IterativeOperator):
    """A linear operator given as a function on batches; make one with ``from_function``.

    ``function`` maps images (B, *shape) to observations (B, *measured), ``transpose`` back (None: by autograd).
    With ``per_image`` the function holds one parameter per image of a batch, and is called batch by batch.
    """

    function: Map
    shape: Shape
    measured: tuple[int, ...]
    transpose: Map | None = None
    least_squares: LeastSquares = STANDARD
    per_image: bool = False
    copies: int = 1

    def forward(self, x: Tensor) -> Tensor:
        require_image(x)
        if tuple(x.shape[1:]) != self.shape:
            raise ShapeError(f"the image has shape {tuple(x.shape[1:])}; the operator was made for {self.shape}")
        return self._copied(self.function, working(x), self.measured).to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        self.image_shape(tuple(y.shape[1:]))
        require_floating(y, "observation")
        transpose = self.transpose or self._autograd_transpose
        return self._copied(transpose, working(y), self.shape).to(y.dtype)

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        if tuple(observation_shape) != self.measured:
            raise ShapeError(f"one observation has shape {tuple(observation_shape)}; give one of {self.measured}")
        return self.shape

    def observation_shape(self, shape: Shape) -> tuple[int, ...]:
        self.at(shape)
        return self.measured

    def at(self, shape: Shape) -> LinearOperator:
        return at_fixed_shape(self, self.shape, shape)

    def repeated(self, count: int) -> FunctionOperator:
        return replace(self, copies=self.copies * count) if self.per_image else self

    def _copied(self, function: Map, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        parts = [function(part) for part in x.chunk(self.copies)] if self.copies > 1 else [function(x)]
        for part in parts:
            if tuple(part.shape[1:]) != shape:
                raise ShapeError(
                    f"the operator's function returned shape {tuple(part.shape)}; return (batch, *{shape})"
                )
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _autograd_transpose(self, y: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(len(y), *self.shape, dtype=y.dtype, device=y.device, requires_grad=True)
            observed = self.function(x)
            if not observed.requires_grad:
                raise OptionError("autograd cannot follow the operator's forward function; give its adjoint as well")
            outer = y.clone() if y.is_inference() else y
            (gradient,) = torch.autograd.grad(observed, x, outer, create_graph=differentiable)
            return gradient


def from_function(
    forward: Callable[[Tensor], Tensor],
    shape: Shape,
    adjoint: Callable[[Tensor], Tensor] | None = None,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 500,
    per_image: bool = False,
    device: str | torch.device = "cpu",
) -> FunctionOperator:
    """The operator of a linear function ``forward`` from images (B, *shape) to observations (B, ...).

    ``shape`` is (C, H, W). Without ``adjoint`` (observations to images) autograd transposes ``forward``; it must then
    consist of differentiable torch operations. The pseudo-inverse is solved for by ``LeastSquares(tolerance,
    max_iterations)``. Set ``per_image`` where forward holds a parameter for each image of a batch, such as masks
    (B, 1, H, W). ``forward`` is called here once with a black image on ``device``, to learn the observation's shape;
    whether it is linear is not checked here: see ``check_operator``.

    Raises OptionError where forward fails or returns no floating-point tensor with a batch axis.
    """
    shape = image_shape_or_error(shape)
    measured = _measured(forward, shape, device)
    solver = LeastSquares(tolerance, max_iterations)
    return FunctionOperator(forward, shape, measured, adjoint, solver, per_image)


def _measured(forward: Callable[[Tensor], Any], shape: Shape, device: str | torch.device) -> tuple[int, ...]:
    try:
        with torch.no_grad():
            observed = forward(torch.zeros(1, *shape, device=device))
    except Exception as error:
        raise OptionError(
            f"the forward function failed on a float32 image batch of shape {(1, *shape)} "
            f"({type(error).__name__}: {error}); make it take such batches, or correct the shape or the device"
        ) from error
    if not isinstance(observed, Tensor) or observed.ndim < 2 or not observed.is_floating_point():
        what = f"{observed.dtype} of shape {tuple(observed.shape)}" if isinstance(observed, Tensor) else type(observed)
        raise OptionError(f"the forward function returned {what}; return a real floating-point tensor (batch, ...)")
    return tuple(observed.shape[1:])
