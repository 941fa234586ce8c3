"""Colorization: the observation is a weighted sum of the colour channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from deqir.errors import OptionError, ShapeError
from deqir.operators.base import DecomposableOperator, Shape, require_image, require_observation, working

Weights = tuple[float, float, float]

NAMED_WEIGHTS: dict[str, Weights] = {"mean": (1 / 3, 1 / 3, 1 / 3), "luma": (0.299, 0.587, 0.114)}


@dataclass(frozen=True)
class Colorization(DecomposableOperator):
    """Grey from colour: image (B, 3, H, W) to observation ``y = sum_c w_c x_c`` (B, 1, H, W).

    ``weights`` is "mean" (DDNM, arXiv 2212.00490, sec. 3.2), "luma" (ITU-R Rec. 601: 0.299, 0.587, 0.114) or three
    numbers (red, green, blue), used as they are. The pseudo-inverse is ``y w / ||w||^2``.

    Raises OptionError for other weights or all zero, and ShapeError for an image without 3 channels or an observation
    without 1.
    """

    weights: str | Weights = "mean"

    def __post_init__(self) -> None:
        if isinstance(self.weights, str):
            if self.weights not in NAMED_WEIGHTS:
                raise OptionError(f"the weights are {self.weights!r}; choose 'mean', 'luma' or three numbers")
            return
        object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
        finite = all(math.isfinite(weight) for weight in self.weights)
        if len(self.weights) != 3 or not finite or not any(self.weights):
            raise OptionError(f"the weights are {self.weights}; give three finite numbers, not all zero")

    @property
    def channel_weights(self) -> Weights:
        """The weights (red, green, blue) as numbers."""
        return NAMED_WEIGHTS[self.weights] if isinstance(self.weights, str) else self.weights

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        if len(observation_shape) != 3 or observation_shape[0] != 1:
            raise ShapeError(f"one grey observation has shape {observation_shape}; give one of (1, height, width)")
        return (3, observation_shape[1], observation_shape[2])

    def at(self, shape: Shape) -> Colorization:
        if shape[0] != 3:
            raise ShapeError(f"the image has {shape[0]} channels; colorization needs one with 3")
        return self

    @property
    def row_gain(self) -> float:
        return math.hypot(*self.channel_weights) ** 2

    @property
    def acts_per_pixel(self) -> bool:
        return True

    def singular_values(self, like: Tensor) -> Tensor:
        return like.new_full((), math.hypot(*self.channel_weights))

    def V(self, coefficients: Tensor) -> Tensor:
        return coefficients * _direction(self.channel_weights, coefficients.dtype, coefficients.device)

    def V_adjoint(self, x: Tensor) -> Tensor:
        require_image(x, channels=3)
        x = working(x)
        return (x * _direction(self.channel_weights, x.dtype, x.device)).sum(dim=1, keepdim=True)

    def U(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def U_adjoint(self, y: Tensor) -> Tensor:
        require_observation(y)
        self.image_shape(tuple(y.shape[1:]))
        return working(y)


@lru_cache(maxsize=16)
def _direction(weights: Weights, dtype: torch.dtype, device: torch.device) -> Tensor:
    """w / ||w|| as (3, 1, 1)."""
    with torch.inference_mode(False):
        vector = torch.tensor(weights, dtype=torch.float64, device="cpu")
        direction = vector / math.hypot(*weights)
        return direction.to(dtype).to(device).reshape(3, 1, 1)
