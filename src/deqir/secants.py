"""The last few changes of states and predictions, matched exactly by a low-rank correction of a Jacobian model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class SecantMemory:
    """Up to ``size`` pairs (moved D, changed G) per state and image, and the multi-secant correction they imply.

    For a model J the corrected one is ``J + (G - J D) (D^T D + ridge)^-1 D^T``: it maps the remembered moves to what
    the network made of them and is J on everything orthogonal (the type-I Anderson or Broyden update, on the network
    instead of the residual). ``ridge`` is relative to the largest squared move.
    """

    def __init__(self, size: int, ridge: float):
        self.size = size
        self.ridge = ridge
        self.moves: list[Tensor] = []
        self.changes: list[Tensor] = []
        self._prepared: tuple[Tensor, Tensor, Tensor] | None = None

    def push(self, moved: Tensor, changed: Tensor) -> None:
        """Remember one pair, both (S, B, C, H, W), and forget the oldest beyond ``size``."""
        self.moves = [moved, *self.moves][: self.size]
        self.changes = [changed, *self.changes][: self.size]

    def prepare(self, model: Callable[[Tensor], Tensor]) -> None:
        """Make the correction ready for ``model``, which applies J to changes (S, B, C, H, W)."""
        if not self.moves:
            return
        moves = torch.stack(self.moves, 2)  # (S, B, m, C, H, W)
        missed = torch.stack([g - model(d) for d, g in zip(self.moves, self.changes, strict=True)], 2)
        flat = moves.flatten(3)
        gram = (flat @ flat.transpose(-1, -2)).double()
        largest = gram.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None]
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        inverse = torch.linalg.inv(gram + (self.ridge * largest + 1e-12) * eye)
        self._prepared = (moves, missed, inverse.to(moves.dtype))

    def correction(self, i: int, displacement: Tensor) -> Tensor:
        """What J misses of the response of state i to a displacement (B, C, H, W)."""
        if self._prepared is None:
            return torch.zeros_like(displacement)
        moves, missed, inverse = (part[i] for part in self._prepared)
        inner = torch.einsum("bmchw,bchw->bm", moves, displacement)
        weights = torch.einsum("bmn,bn->bm", inverse, inner)
        return torch.einsum("bm,bmchw->bchw", weights, missed)
