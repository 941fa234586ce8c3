"""DDNM: range-null-space consistency for observations without noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import torch
from torch import Tensor

from deqir.consistency.base import AffineStep, ConsistencyRule, merged, span
from deqir.consistency.checks import require_fraction
from deqir.errors import OptionError
from deqir.noise import NoiseSection, StepNoises
from deqir.operators import LinearOperator
from deqir.schedule import NoiseLevels


@dataclass(frozen=True)
class DDNM(ConsistencyRule):
    """The range-null-space rule ``xh + A+(y - A xh)`` with DDIM's ``eta`` (DDNM, arXiv 2212.00490, eq. 13 and 16).

    ``eta`` = 0 is deterministic, 1 as noisy as DDPM. The observation is taken as noiseless.
    """

    eta: float = 0.85

    def __post_init__(self) -> None:
        require_fraction("eta", self.eta)

    @property
    def needs_noise(self) -> bool:
        """Whether the steps draw fresh noise: for any eta above zero."""
        return self.eta > 0

    def bind(self, operator: LinearOperator, y: Tensor, levels: NoiseLevels, noises: StepNoises | None) -> DDNMStep:
        """The rule for one observation ``y``; ``noises`` (S, B, C, H, W) may be None where eta is 0."""
        if self.needs_noise and noises is None:
            raise OptionError(f"eta is {self.eta} but no noises are given; draw them or set eta to 0")
        return DDNMStep(operator, operator.pinv(y), levels, self.eta, noises)


@dataclass(frozen=True, eq=False)
class DDNMStep(AffineStep):
    """DDNM on one problem; ``observed`` is A+ y, (B, C, H, W) in [-1, 1] units."""

    operator: LinearOperator
    observed: Tensor
    levels: NoiseLevels
    eta: float
    noises: StepNoises | None

    def parts(self, i: int, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """One serial step, as the paper writes it."""
        a, a_next = self.levels.step(i)
        denoised = (x - sqrt(1 - a) * e) / sqrt(a)
        corrected = self.observed + denoised - self.operator.range_projection(denoised)
        return corrected, sqrt(1 - a_next) * self._renoise(e, i)

    def section(self, start: int, stop: int) -> DDNMStep:
        """A part of the chain, with the closed form of its own."""
        noises = None if self.noises is None else NoiseSection(self.noises, start)
        return replace(self, levels=self.levels.section(start, stop), noises=noises)

    def transpose(self, i: int, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """The transposed step: the null-space projection is its own transpose."""
        a, a_next = self.levels.step(i)
        hidden = sqrt(a_next / a) * (cotangent - self.operator.range_projection(cotangent))
        kept = 1.0 if self.noises is None else sqrt(1 - self.eta**2)
        return hidden, sqrt(1 - a_next) * kept * cotangent - sqrt(1 - a) * hidden

    def _renoise(self, e: Tensor, steps: int | slice) -> Tensor:
        """``sqrt(1 - eta^2) e_i + eta z_i`` for one step or several."""
        if self.noises is None or self.eta == 0:
            return e
        return sqrt(1 - self.eta**2) * e + self.eta * self.noises[steps]

    def replay(
        self, states: Tensor, predictions: Tensor, prefix: Tensor, stop: Tensor, order: int | None = None
    ) -> Tensor:
        """The closed form: one prefix sum over the chain and one range projection of the batch (method.md, sec. 2).

        With ``u_i = x_i / sqrt(a_i)`` and m the final prefix, or the old state ``order`` before k if that is later,
        ``u_k = A+ y + P [u_m + sum_{m<=j<k} (c_j n_j - b_j e_j)] + Q [c_{k-1} n_{k-1}]``,
        where ``n_j`` is the renoising direction, ``b_j`` the noise-to-signal of state j and ``c_j`` that of j + 1.
        """
        first, last = span(prefix, stop)
        if first >= last:
            return states[1:]
        ratio = self.levels.noise_to_signal.to(states).view(-1, 1, 1, 1, 1)
        scale = self.levels.alphas.sqrt().to(states).view(-1, 1, 1, 1, 1)
        window = slice(first, last)
        renoised = ratio[1:][window] * self._renoise(predictions[window], window)
        moves = renoised - ratio[:-1][window] * predictions[window]
        index = torch.arange(first, last, device=states.device).view(-1, 1)
        sums = torch.where((index >= prefix).view(*moves.shape[:2], 1, 1, 1), moves, 0).cumsum(0)
        origin = prefix.view(1, -1) if order is None else torch.maximum(prefix, index + 1 - order)
        base = states[origin, torch.arange(len(prefix), device=states.device)] / scale[origin].squeeze(2)
        drift = base + sums if order is None else base + (sums - _sums_before(sums, origin - first))
        shape = drift.shape
        operator = self.operator.repeated(shape[0])
        projected = operator.range_projection((renoised - drift).flatten(0, 1)).view(shape)
        return merged(states, scale[1:][window] * (self.observed + drift + projected), first, prefix, stop)


def _sums_before(sums: Tensor, position: Tensor) -> Tensor:
    """Inclusive sums (n, B, C, H, W) read one entry before ``position`` (n, B): zero at position 0."""
    before = (position - 1).clamp(min=0, max=len(sums) - 1)
    read = sums[before, torch.arange(sums.shape[1], device=sums.device)]
    return torch.where((position > 0).view(*position.shape, 1, 1, 1), read, 0)
