"""The last few changes of states and predictions, matched exactly by a low-rank correction of a Jacobian model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deqir.precision import finest_dtype

SPREAD = (0.1, 0.25, 0.5, 0.8)
"""How far away in noise, in logarithms of noise to signal, the neighbours lie from which a state borrows."""

BLOCK = 32
"""States whose inner products are taken at a time."""


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Which states of a chain are alike: each one's neighbours in noise, about ``SPREAD`` away on both sides.

    ``noise`` (S,) are the noise levels of the states, ``offsets`` (S, n) int64 how many states ahead the neighbours
    are, the state itself first, ``present`` (S, n) which of them count.
    """

    noise: Tensor
    offsets: Tensor
    present: Tensor

    @classmethod
    def of(cls, variances: Tensor) -> Neighbourhood:
        """Those of states with noise of ``variances`` (S,), ``1 - a_i``.

        The nearest state to each distance in log noise to signal counts, once, where it is off by less than half of it.
        """
        exact = variances.cpu().double()
        logs, index = (exact / (1 - exact)).log() / 2, torch.arange(len(exact))
        targets = torch.tensor([0.0, *(sign * away for away in SPREAD for sign in (1, -1))], dtype=torch.float64)
        # Where a chain travels in time several states have one level: the nearest in time.
        away = 1e-6 * (index - index[:, None]).abs()
        found = torch.stack([((logs - (logs[:, None] + target)).abs() + away).argmin(1) for target in targets], 1)
        present = (logs[found] - (logs[:, None] + targets)).abs() <= targets.abs() / 2
        found[:, 0], present[:, 0] = index, True
        for column in range(1, len(targets)):
            present[:, column] &= ~((found[:, :column] == found[:, column, None]) & present[:, :column]).any(1)
        parts = (variances.sqrt(), found - index[:, None], present)
        return cls(*(part.to(variances.device) for part in parts))

    def section(self, start: int, stop: int | None = None) -> Neighbourhood:
        """The states from ``start`` to before ``stop`` alone; neighbours beyond stay named, but do not count."""
        part = slice(start, stop)
        return Neighbourhood(self.noise[part], self.offsets[part], self.present[part])

    def followed_by(self, other: Neighbourhood) -> Neighbourhood:
        """These states and those of ``other`` behind them."""
        pairs = ((self.noise, other.noise), (self.offsets, other.offsets), (self.present, other.present))
        return Neighbourhood(*(torch.cat(pair) for pair in pairs))

    @property
    def index(self) -> tuple[Tensor, Tensor]:
        """The neighbours' numbers (S, n), and which of them count and are here."""
        numbers = torch.arange(len(self.noise), device=self.offsets.device)[:, None] + self.offsets
        here = (numbers >= 0) & (numbers < len(self.noise))
        return torch.where(here, numbers, 0), self.present & here


class SecantMemory:
    """Up to ``size`` pairs (moved D, missed R) per state and image, and the multi-secant correction they imply.

    ``R = G - J D`` is what a model J of the Jacobian misses of the change G that the network made of the move D. The
    corrected model ``J + R (D^T D + ridge)^-1 D^T`` maps the remembered moves to what the network made of them and is
    J on everything orthogonal (the type-I Anderson or Broyden update, on the network instead of the residual).

    A state's own moves are few and span little of where it goes next. A denoiser changes little between neighbouring
    noise levels, so each state also borrows the pairs of its neighbours: ``noise_j R_j / noise_i`` stands for R_i,
    because a denoiser's Jacobian in units of the noise is much the same in both. ``ridge`` is relative to the squared
    length of a move. Where moves vanish or are not finite there is no correction.
    """

    def __init__(self, size: int, ridge: float, neighbourhood: Neighbourhood):
        self.size, self.ridge, self.neighbourhood = size, ridge, neighbourhood
        self.neighbours, self.present = neighbourhood.index
        self.moves: list[Tensor] = []
        self.missed: list[Tensor] = []
        self.inverse: Tensor | None = None

    def section(self, start: int, stop: int) -> SecantMemory:
        """An empty memory of the states from ``start`` to before ``stop``."""
        return SecantMemory(self.size, self.ridge, self.neighbourhood.section(start, stop))

    def push(
        self,
        moved: Tensor,
        missed: Tensor,
        kept: Tensor | None = None,
        update: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Remember one pair of every state, both (S, B, C, H, W), and forget the oldest beyond ``size``.

        Where ``kept`` (S, B) is false all pairs are forgotten. ``update(D)`` is what a model that has changed since
        misses more of earlier moves D.
        """
        if self.size == 0:
            return
        length = torch.linalg.vector_norm(moved.flatten(2), dim=2, dtype=finest_dtype(moved.device))
        sound = (length > 1e-12) & length.isfinite() & missed.isfinite().flatten(2).all(2)
        scale = torch.where(sound, 1 / length, 0)[..., None, None, None].to(moved.dtype)
        self.moves, self.missed = self.moves[: self.size - 1], self.missed[: self.size - 1]
        if update is not None:
            for move, part in zip(self.moves, self.missed, strict=True):
                part += update(move)
        self.moves.insert(0, torch.where(scale > 0, moved * scale, 0))
        self.missed.insert(0, torch.where(scale > 0, missed * scale, 0))
        if kept is not None:
            for part in (*self.moves, *self.missed):
                part.masked_fill_(~kept[..., None, None, None], 0)
        starts = range(0, len(moved), BLOCK)
        self.inverse = torch.cat([self._inverses(start, min(start + BLOCK, len(moved))) for start in starts])

    def slide(self, count: int, fresh: SecantMemory) -> None:
        """Forget the first ``count`` states; those of ``fresh``, which have not moved yet, follow the others."""
        self.moves, self.missed = ([slid(part, count) for part in m] for m in (self.moves, self.missed))
        self.neighbourhood = self.neighbourhood.section(count).followed_by(fresh.neighbourhood)
        self.neighbours, self.present = self.neighbourhood.index
        self.inverse = None

    def correction(self, i: int, displacement: Tensor) -> Tensor | None:
        """What J misses of the response of state i to a ``displacement``, (B, C, H, W); None before the first pair."""
        if self.inverse is None:
            return None
        near, noise = self.neighbours[i], self.neighbourhood.noise
        flat = displacement.flatten(1)
        inner = torch.cat([torch.einsum("nbv,bv->bn", moved[near].flatten(2), flat) for moved in self.moves], 1)
        weights = torch.einsum("bmn,bn->bm", self.inverse[i].to(inner.dtype), inner)
        weights = weights * (noise[near] / noise[i]).repeat(len(self.moves)).to(inner.dtype)
        parts = torch.split(weights, len(near), 1)
        found = sum(
            torch.einsum("bn,nbv->bv", part, missed[near].flatten(2))
            for part, missed in zip(parts, self.missed, strict=True)
        )
        correction = torch.as_tensor(found).view_as(displacement)
        return torch.where(correction.isfinite(), correction, 0)

    def _inverses(self, start: int, stop: int) -> Tensor:
        """The inverse of the damped Gram matrix of all pairs that each of these states uses, (n, B, pairs, pairs)."""
        near, present = self.neighbours[start:stop], self.present[start:stop]
        first, last = int(near.min()), int(near.max()) + 1
        lags, batch = len(self.moves), self.moves[0].shape[1]
        rows = [part[first:last].flatten(2).transpose(0, 1) for part in self.moves]  # (B, band, values)
        gram = torch.stack([torch.stack([row @ other.mT for other in rows], 2) for row in rows], 2)
        gram = gram.transpose(3, 4).to(finest_dtype(gram.device))  # (B, band, lags, band, lags)
        local = near - first
        gram = gram[:, local[:, :, None], :, local[:, None, :], :]  # (n, near, near, B, lags, lags)
        gram = gram.permute(0, 3, 4, 1, 5, 2)
        shown = present[:, None, None, :, None, None] & present[:, None, None, None, None, :]
        size = lags * near.shape[1]
        gram = torch.where(shown, gram, 0).reshape(len(near), batch, size, size)
        eye = torch.eye(size, dtype=gram.dtype, device=gram.device)
        inverse: Tensor = torch.linalg.inv(gram + self.ridge * eye)
        inside = present.repeat(1, lags)
        return torch.where((inside[:, None, :] & inside[:, :, None])[:, None], inverse, 0)


def slid(values: Tensor, count: int) -> Tensor:
    """``values`` (S, ...) without the first ``count``, and with as many zeros behind the others."""
    return torch.cat([values[count:], torch.zeros_like(values[:count])])
