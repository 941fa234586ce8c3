"""Triangular Anderson acceleration: the weights of a state from the residuals of all states up to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deqir.solvers.anderson import Anderson
from deqir.solvers.history import History


@dataclass(frozen=True)
class TriangularAnderson(Anderson):
    """Anderson acceleration with block triangular mixing (ParaTAA, arXiv 2402.09970).

    The weights of state k minimise the mixed residual of the states up to k, from the first that is not final on:
    more equations for the same few unknowns than in ``Anderson``, and still no state depends on a later one.
    Options, shapes and errors are those of ``Anderson``.
    """

    def systems(self, memory: History, active: Tensor) -> tuple[Tensor, Tensor]:
        """Gram matrices summed over the ``active`` states up to k; an entry counts for k if it does for all of them."""
        counted = active[..., None]
        grams = torch.where(counted[..., None], memory.gram, 0).cumsum(0)
        valid = (memory.valid | ~counted).long().cumprod(0).bool()
        return grams, valid & memory.valid
