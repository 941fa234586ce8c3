"""No observation at all: what a prior draws by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deqir.errors import ShapeError
from deqir.operators.base import DecomposableOperator, Shape, require_image, require_observation, working


@dataclass(frozen=True)
class Unobserved(DecomposableOperator):
    """A = 0: image and observation are both (B, C, H, W), and whatever the image, the observation is zero.

    A chain under it is the unconditional sampler of the prior; ``torch.zeros`` of the wanted shape is its observation.
    """

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        if len(observation_shape) != 3:
            raise ShapeError(f"one observation has shape {observation_shape}; give one of (channels, height, width)")
        return (observation_shape[0], observation_shape[1], observation_shape[2])

    def singular_values(self, like: Tensor) -> Tensor:
        return torch.zeros_like(like)

    def V(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def V_adjoint(self, x: Tensor) -> Tensor:
        require_image(x)
        return working(x)

    def U(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def U_adjoint(self, y: Tensor) -> Tensor:
        require_observation(y)
        return working(y)
