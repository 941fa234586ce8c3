"""The last few changes of states and predictions, matched exactly by a low-rank correction of a Jacobian model."""

from __future__ import annotations

import torch
from torch import Tensor

from deqir.precision import finest_dtype


class SecantMemory:
    """Up to ``size`` pairs (moved D, changed G) per state and image, and the multi-secant correction they imply.

    For a model J the corrected one is ``J + (G - J D) (D^T D + ridge)^-1 D^T``: it maps the remembered moves to what
    the network made of them and is J on everything orthogonal (the type-I Anderson or Broyden update, on the network
    instead of the residual). ``ridge`` is relative to the largest squared move. Where moves overflow there is no
    correction.
    """

    def __init__(self, size: int, ridge: float):
        self.size = size
        self.ridge = ridge
        self.moves: list[Tensor] = []
        self.changes: list[Tensor] = []
        self.inverse: Tensor | None = None

    def push(self, moved: Tensor, changed: Tensor) -> None:
        """Remember one pair, both (S, B, C, H, W), and forget the oldest beyond ``size``."""
        if self.size == 0:
            return
        self.moves = [moved, *self.moves][: self.size]
        self.changes = [changed, *self.changes][: self.size]
        gram = torch.stack([torch.stack([_inner(d, other) for other in self.moves], -1) for d in self.moves], -2)
        largest = gram.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None]
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        sound = gram.isfinite().all(-1).all(-1)[..., None, None]
        damped = torch.where(sound, gram + (self.ridge * largest + 1e-12) * eye, eye)
        self.inverse = torch.where(sound, torch.linalg.inv(damped), 0)

    def slide(self, count: int) -> None:
        """Forget the first ``count`` states; as many new ones, which have not moved yet, follow the others."""
        self.moves, self.changes = [slid(d, count) for d in self.moves], [slid(g, count) for g in self.changes]
        if self.inverse is not None:
            self.inverse = slid(self.inverse, count)

    def directions(self, i: int) -> Tensor | None:
        """The remembered moves of state i, (B, m, C, H, W); None before the first."""
        return torch.stack([moved[i] for moved in self.moves], 1) if self.moves else None

    def correction(self, i: int, displacement: Tensor, moves: Tensor, modelled: Tensor) -> Tensor:
        """What J misses of the response of state i to a ``displacement``, (B, C, H, W).

        ``moves`` are its ``directions``, ``modelled`` what J makes of them, (B, m, C, H, W).
        """
        assert self.inverse is not None, "there are no directions yet"
        missed = torch.stack([changed[i] for changed in self.changes], 1) - modelled
        inner = torch.einsum("bmchw,bchw->bm", moves, displacement)
        weights = torch.einsum("bmn,bn->bm", self.inverse[i].to(inner.dtype), inner)
        correction = torch.einsum("bm,bmchw->bchw", weights, missed)
        return torch.where(correction.isfinite(), correction, 0)


def slid(values: Tensor, count: int) -> Tensor:
    """``values`` (S, ...) without the first ``count``, and with as many zeros behind the others."""
    return torch.cat([values[count:], torch.zeros_like(values[:count])])


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products over the last three axes, summed in float64 where the device has it."""
    return (a * b).flatten(-3).sum(-1, dtype=finest_dtype(a.device))
