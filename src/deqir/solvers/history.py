"""What the solvers of the Anderson family remember, and how they mix it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deqir.precision import finest_dtype


@dataclass
class History:
    """Ring buffers of the last residuals F(X) - X and images F(X), each (history_size, S, B, ...), and their Gram
    matrices of residuals, (S, B, history_size, history_size), float64 where the device has it.

    ``valid`` (S, B, history_size) tells which entries were computed: a state outside the window has none.
    """

    residuals: Tensor
    images: Tensor
    gram: Tensor
    valid: Tensor
    count: int = 0

    @classmethod
    def empty(cls, size: int, start: Tensor) -> History:
        """Buffers of ``size`` entries for iterates like ``start`` (S, B, ...)."""
        shape, matrices = (size, *start.shape), (*start.shape[:2], size, size)
        gram = torch.zeros(matrices, dtype=finest_dtype(start.device), device=start.device)
        return cls(start.new_zeros(shape), start.new_zeros(shape), gram, torch.zeros_like(gram[..., 0]).bool())

    @property
    def held(self) -> int:
        """How many entries are held."""
        return min(self.count, len(self.residuals))

    @property
    def latest(self) -> int:
        """The slot of the newest entry."""
        return (self.count - 1) % len(self.residuals)

    def push(self, residual: Tensor, image: Tensor, active: Tensor) -> None:
        """Store one pair (S, B, ...), valid where ``active`` (S, B), over the oldest; update its row of the Grams."""
        slot = self.count % len(self.residuals)
        self.residuals[slot], self.images[slot], self.valid[..., slot] = residual, image, active
        self.count += 1
        for other in range(self.held):
            product = (self.residuals[slot] * self.residuals[other]).flatten(2).sum(2, dtype=self.gram.dtype)
            self.gram[:, :, slot, other] = self.gram[:, :, other, slot] = product

    def slid(self, count: int) -> History:
        """Without the first ``count`` states, and with as many new ones behind, of which nothing is known."""
        residuals, images = (_slid(part, count, 1) for part in (self.residuals, self.images))
        return History(residuals, images, _slid(self.gram, count, 0), _slid(self.valid, count, 0), self.count)

    def mixture(self, weights: Tensor, damping: float) -> Tensor:
        """``sum_i w_i (X_i + damping (F(X_i) - X_i))``, (S, B, ...), for weights (S, B, held)."""
        weights = weights.to(self.images.dtype)
        mixed = torch.zeros_like(self.images[0])
        for slot in range(self.held):
            weight = weights[:, :, slot].view(*mixed.shape[:2], *[1] * (mixed.ndim - 2))
            mixed += weight * (self.images[slot] - (1 - damping) * self.residuals[slot])
        return mixed


def _slid(values: Tensor, count: int, axis: int) -> Tensor:
    kept = values.narrow(axis, count, values.shape[axis] - count)
    return torch.cat([kept, torch.zeros_like(values.narrow(axis, 0, count))], axis)


def mixing_weights(gram: Tensor, valid: Tensor, ridge: float, latest: int) -> Tensor:
    """Weights (..., h) of sum one that minimise ``w^T gram w + ridge scale |w|^2``; zero where an entry is not valid.

    ``gram`` (..., h, h) holds the products of h residuals, of which ``valid`` (..., h) count; ``scale`` is the
    largest of their squares. Entries with a square that is not finite do not count. Residuals that are all zero give
    even weights; where no entry counts or the system is singular to rounding, entry ``latest`` gets all the weight.
    """
    squares = gram.diagonal(dim1=-2, dim2=-1)
    valid = valid & squares.isfinite()
    both = valid[..., :, None] & valid[..., None, :]
    gram = torch.where(both, gram, 0)
    scale = torch.where(valid, squares, 0).amax(-1)[..., None, None]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    normal = torch.where(scale > 0, gram / torch.where(scale > 0, scale, 1), eye) + max(ridge, 1e-12) * eye
    counting = valid.to(gram.dtype)
    solution = torch.linalg.solve_ex(normal, counting[..., None]).result[..., 0] * counting
    weights: Tensor = solution / solution.sum(-1, keepdim=True)
    sound = weights.isfinite().all(-1, keepdim=True)
    return torch.where(sound, weights, eye[latest])
