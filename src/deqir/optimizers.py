"""Ways to move a noise tensor along its gradient; what they remember can be saved and taken up again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from deqir.errors import OptionError

OptimizerName = Literal["adam", "lbfgs", "spherical"]
Evaluate = Callable[[], Tensor]
"""Leaves the gradient in the noise and returns the sum of the losses, ()."""


class Optimizer(ABC):
    """Moves ``noise`` (N, B, C, H, W), in place."""

    @abstractmethod
    def step(self, evaluate: Evaluate) -> None:
        """Call ``evaluate``, first where the noise is, and move; a gradient that is missing moves nothing."""

    @abstractmethod
    def memory(self) -> dict[str, Tensor]:
        """What it remembers, by name."""


class Adam(Optimizer):
    """Adam (Kingma & Ba, arXiv 1412.6980), torch's own."""

    def __init__(self, noise: Tensor, learning_rate: float | None, memory: Mapping[str, Tensor]):
        self.noise = noise
        self.inner = torch.optim.Adam([noise], lr=learning_rate or 0.05)
        if memory:
            state = {key: value.to(noise) if value.ndim else value for key, value in memory.items()}
            self.inner.state[noise] = state

    def step(self, evaluate: Evaluate) -> None:
        evaluate()
        if self.noise.grad is not None and bool(self.noise.grad.isfinite().all()):
            self.inner.step()

    def memory(self) -> dict[str, Tensor]:
        return {key: value for key, value in self.inner.state[self.noise].items() if isinstance(value, Tensor)}


class LBFGS(Optimizer):
    """L-BFGS with strong Wolfe line search, torch's own; taken up again, it has forgotten the curvature."""

    def __init__(self, noise: Tensor, learning_rate: float | None, memory: Mapping[str, Tensor]):
        if noise.shape[1] != 1:
            raise OptionError(f"lbfgs takes one image at a time, not {noise.shape[1]}; choose adam, or restore singly")
        self.noise = noise
        # One step of the search a call, ten trials in its line search.
        self.inner = torch.optim.LBFGS(
            [noise],
            lr=learning_rate or 1.0,
            max_iter=1,
            max_eval=10,
            tolerance_grad=0,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

    def step(self, evaluate: Evaluate) -> None:
        def closure() -> float:
            value = float(evaluate())
            if self.noise.grad is None:
                self.noise.grad = torch.zeros_like(self.noise)
            return value

        self.inner.step(closure)  # type: ignore[no-untyped-call]

    def memory(self) -> dict[str, Tensor]:
        return {}


class Spherical(Optimizer):
    """Steepest descent with momentum on the sphere of every noise image: its norm, that of Gaussian noise, is kept.

    The gradient is projected onto the sphere's tangent space and normalised; a step turns an image by at most
    ``learning_rate`` radians (0.05), less where successive gradients disagree.
    """

    MOMENTUM = 0.8

    def __init__(self, noise: Tensor, learning_rate: float | None, memory: Mapping[str, Tensor]):
        self.noise = noise
        self.angle = learning_rate or 0.05
        self.velocity = memory["velocity"].to(noise) if "velocity" in memory else torch.zeros_like(noise)

    def step(self, evaluate: Evaluate) -> None:
        evaluate()
        if self.noise.grad is not None and bool(self.noise.grad.isfinite().all()):
            self._turn(self.noise.grad)

    @torch.no_grad()
    def _turn(self, gradient: Tensor) -> None:
        radius = _norm(self.noise)
        direction = self.noise / radius
        slope = self._tangent(gradient, direction)
        slope = slope / _norm(slope).clamp(min=torch.finfo(slope.dtype).tiny)
        self.velocity = self._tangent(self.MOMENTUM * self.velocity - (1 - self.MOMENTUM) * slope, direction)
        speed = _norm(self.velocity).clamp(min=torch.finfo(slope.dtype).tiny)
        turn = self.angle * speed
        self.noise.copy_(radius * (turn.cos() * direction + turn.sin() * self.velocity / speed))

    def _tangent(self, vector: Tensor, direction: Tensor) -> Tensor:
        return vector - (vector * direction).sum((-3, -2, -1), keepdim=True) * direction

    def memory(self) -> dict[str, Tensor]:
        return {"velocity": self.velocity}


def _norm(images: Tensor) -> Tensor:
    return images.square().sum((-3, -2, -1), keepdim=True).sqrt()


OPTIMIZERS: Mapping[OptimizerName, Callable[[Tensor, float | None, Mapping[str, Tensor]], Optimizer]] = {
    "adam": Adam,
    "lbfgs": LBFGS,
    "spherical": Spherical,
}
