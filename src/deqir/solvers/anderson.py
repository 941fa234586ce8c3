"""Anderson acceleration with mixing weights of its own for every state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deqir.errors import OptionError
from deqir.solvers.base import FixedPointSolver


@dataclass
class History:
    """Ring buffers of the last residuals F(X) - X and images F(X), each (history_size, S, B, ...), and their Gram
    matrices of residuals, (S, B, history_size, history_size) float64."""

    residuals: Tensor
    images: Tensor
    gram: Tensor
    count: int = 0

    def push(self, residual: Tensor, image: Tensor) -> int:
        """Store one pair over the oldest and update its row of the Gram matrices; returns how many are held."""
        size = len(self.residuals)
        slot = self.count % size
        self.residuals[slot], self.images[slot] = residual, image
        self.count += 1
        held = min(self.count, size)
        for other in range(held):
            product = (self.residuals[slot] * self.residuals[other]).flatten(2).sum(2, dtype=torch.float64)
            self.gram[:, :, slot, other] = self.gram[:, :, other, slot] = product
        return held


@dataclass(frozen=True)
class Anderson(FixedPointSolver):
    """Per-state Anderson acceleration (DEQ-DDIM, arXiv 2210.12867; DeqIR, arXiv 2311.11600, algorithm 1).

    For each state and image, the next iterate is ``sum_i w_i (X_i + damping (F(X_i) - X_i))`` over the last
    ``history_size`` iterates, with the weights of sum one that minimise the mixed residual; ``ridge`` regularises
    them relative to the largest residual kept.
    """

    history_size: int = 3
    damping: float = 1.0
    ridge: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.history_size < 1:
            raise OptionError(f"history_size is {self.history_size}; choose at least 1")
        if not 0 < self.damping <= 1:
            raise OptionError(f"damping is {self.damping}; choose a number above 0 and up to 1")
        if self.ridge < 0:
            raise OptionError(f"ridge is {self.ridge}; choose zero or a small positive number")

    def init(self, start: Tensor) -> History:
        """Empty ring buffers for iterates like ``start`` (S, B, ...)."""
        shape = (self.history_size, *start.shape)
        gram = torch.zeros(*start.shape[:2], *[self.history_size] * 2, dtype=torch.float64, device=start.device)
        return History(start.new_zeros(shape), start.new_zeros(shape), gram)

    def propose(self, states: Tensor, images: Tensor, memory: History) -> tuple[Tensor, History]:
        """The mixture of the held iterates."""
        held = memory.push(images - states, images)
        if held == 1 and self.damping == 1:
            return images, memory
        weights = self.weights(memory.gram[:, :, :held, :held]).to(images.dtype)
        proposed = torch.zeros_like(images)
        for slot in range(held):
            weight = weights[:, :, slot].view(*images.shape[:2], *[1] * (images.ndim - 2))
            proposed += weight * (memory.images[slot] - (1 - self.damping) * memory.residuals[slot])
        return proposed, memory

    def weights(self, gram: Tensor) -> Tensor:
        """Weights (S, B, h) of sum one from Gram matrices (S, B, h, h); even weights where these are degenerate."""
        scale = gram.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None]
        usable = (scale > 0) & scale.isfinite() & gram.isfinite().all(-1).all(-1)[..., None, None]
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        normal = torch.where(usable, gram / torch.where(usable, scale, 1), eye) + max(self.ridge, 1e-12) * eye
        ones = gram.new_ones(*gram.shape[:-1], 1)
        solution: Tensor = torch.linalg.solve(normal, ones)[..., 0]
        return solution / solution.sum(-1, keepdim=True)
