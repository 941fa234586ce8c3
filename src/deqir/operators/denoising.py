"""Denoising: the observation is the image itself, with noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from deqir.errors import ShapeError
from deqir.operators.base import DecomposableOperator, Shape, require_image, working


@dataclass(frozen=True)
class Denoising(DecomposableOperator):
    """The identity: image and observation are both (B, C, H, W). Raises ShapeError for another number of axes."""

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        if len(observation_shape) != 3:
            raise ShapeError(f"one observation has shape {observation_shape}; give one of (channels, height, width)")
        return (observation_shape[0], observation_shape[1], observation_shape[2])

    @property
    def row_gain(self) -> float:
        return 1.0

    @property
    def acts_per_channel(self) -> bool:
        return True

    def singular_values(self, like: Tensor) -> Tensor:
        return like.new_ones(())

    def V(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def V_adjoint(self, x: Tensor) -> Tensor:
        require_image(x)
        return working(x)

    def U(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def U_adjoint(self, y: Tensor) -> Tensor:
        return self.V_adjoint(y)
