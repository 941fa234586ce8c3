"""Consistency rules: how an observation enters one sampling step. Each step is affine in (x_i, e_i)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf, sqrt

import torch
from torch import Tensor

from deqir.errors import OptionError
from deqir.noise import StepNoises
from deqir.operators import DecomposableOperator, LinearOperator
from deqir.schedule import NoiseLevels

Linearisation = Callable[[int, Tensor, Tensor], Tensor]
"""``predict(i, x, carried)``: the noise predicted in state i at x, of which ``carried`` is known to be noise."""


class AffineStep(ABC):
    """A rule bound to one problem: operator, observation, noise levels and the noise of every step.

    Index i runs over the S steps; B images travel together. ``noises`` is (S, B, C, H, W), or None where the rule
    draws none, or anything indexed like it.
    """

    levels: NoiseLevels

    @abstractmethod
    def parts(self, i: int, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """The clean image and the noise of the next state, ``x_{i+1} = sqrt(a_{i+1}) clean + noise``.

        From the state ``x_i`` and the predicted noise ``e_i``; all (B, C, H, W).
        """

    def __call__(self, i: int, x: Tensor, e: Tensor) -> Tensor:
        """``x_{i+1}`` (B, C, H, W) from the state ``x_i`` and the predicted noise ``e_i`` of the same shape."""
        clean, noise = self.parts(i, x, e)
        return sqrt(float(self.levels.alphas[i + 1])) * clean + noise

    def replay(
        self, states: Tensor, predictions: Tensor, prefix: Tensor, stop: Tensor, order: int | None = None
    ) -> Tensor:
        """All states after the final ones, from frozen noise predictions.

        ``states`` (S + 1, B, C, H, W) holds x_0 .. x_S, of which image b's first ``prefix[b]`` + 1 are final;
        ``predictions`` (S, B, C, H, W) holds e_i for prefix[b] <= i < stop[b]. Returns x_1 .. x_S with the final ones
        and those after x_stop[b] kept. With ``order`` k, x_i is replayed from the old x_{i-k} where that comes after
        the final ones (equations of order k, ParaTAA, arXiv 2402.09970), else from the last final one.
        """
        first, last = _span(prefix, stop)
        if first >= last:
            return states[1:]
        if order is None:
            replayed = list(self._walk(first, last, states, predictions, prefix, None))
        else:
            walks = (
                self._walk(max(first, i - order), i, states, predictions, prefix, None)
                for i in range(first + 1, last + 1)
            )
            replayed = [list(walk)[-1] for walk in walks]
        return _merged(states, torch.stack(replayed), first, prefix, stop)

    def replay_linearised(self, states: Tensor, predictions: Tensor, prefix: Tensor, predict: Linearisation) -> Tensor:
        """Replay to the end; behind the first replayed state, ``predict`` says e_i for where that state has moved.

        Shapes as in ``replay``; states behind the window are replayed too.
        """
        first, last = int(prefix.min()), len(predictions)
        walk = self._walk(first, last, states, predictions, prefix, predict)
        return torch.stack([*states[1 : first + 1], *walk])

    def _walk(
        self,
        first: int,
        last: int,
        states: Tensor,
        predictions: Tensor,
        prefix: Tensor,
        predict: Linearisation | None,
    ) -> Iterator[Tensor]:
        """x_{first+1} .. x_last, walked from the old x_first; images keep their final ones."""
        alphas = self.levels.alphas.tolist()
        current = states[first]
        carried = torch.zeros_like(current)
        for i in range(first, last):
            e = predictions[i] if predict is None or i == first else predict(i, current, carried)
            clean, noise = self.parts(i, current, e)
            carried = noise / sqrt(max(1 - alphas[i + 1], 1e-12))
            ahead = (prefix <= i).view(-1, 1, 1, 1)
            current = torch.where(ahead, sqrt(alphas[i + 1]) * clean + noise, states[i + 1])
            yield current


def _span(prefix: Tensor, stop: Tensor) -> tuple[int, int]:
    """The steps from the first to the last that some image asks for; an empty range where none does."""
    return int(prefix.min()), int(torch.where(prefix < stop, stop, 0).max())


def _merged(states: Tensor, replayed: Tensor, first: int, prefix: Tensor, stop: Tensor) -> Tensor:
    """x_1 .. x_S of ``states``, with ``replayed`` x_{first+1}, ... in every image's own range."""
    last = first + len(replayed)
    index = torch.arange(first, last, device=states.device).view(-1, 1)
    inside = ((index >= prefix) & (index < stop)).view(*replayed.shape[:2], 1, 1, 1)
    kept = states[first + 1 : last + 1]
    return torch.cat([states[1 : first + 1], torch.where(inside, replayed, kept), states[last + 1 :]])


class ConsistencyRule(ABC):
    """A rule of data consistency, before it meets a problem."""

    @abstractmethod
    def bind(self, operator: LinearOperator, y: Tensor, levels: NoiseLevels, noises: StepNoises | None) -> AffineStep:
        """The rule for one observation ``y`` of images in [-1, 1]."""

    @property
    @abstractmethod
    def needs_noise(self) -> bool:
        """Whether the steps draw fresh noise."""


@dataclass(frozen=True)
class DDNM(ConsistencyRule):
    """The range-null-space rule ``xh + A+(y - A xh)`` with DDIM's ``eta`` (DDNM, arXiv 2212.00490, eq. 13 and 16).

    ``eta`` = 0 is deterministic, 1 as noisy as DDPM. The observation is taken as noiseless.
    """

    eta: float = 0.85

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise OptionError(f"eta is {self.eta}; choose a number from 0 (deterministic) to 1")

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
        a, a_next = self.levels.alphas[i : i + 2].tolist()
        denoised = (x - sqrt(1 - a) * e) / sqrt(a)
        corrected = self.observed + denoised - self.operator.range_projection(denoised)
        return corrected, sqrt(1 - a_next) * self._renoise(e, i)

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
        first, last = _span(prefix, stop)
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
        return _merged(states, scale[1:][window] * (self.observed + drift + projected), first, prefix, stop)


def _sums_before(sums: Tensor, position: Tensor) -> Tensor:
    """Inclusive sums (n, B, C, H, W) read one entry before ``position`` (n, B): zero at position 0."""
    before = (position - 1).clamp(min=0, max=len(sums) - 1)
    read = sums[before, torch.arange(sums.shape[1], device=sums.device)]
    return torch.where((position > 0).view(*position.shape, 1, 1, 1), read, 0)


@dataclass(frozen=True)
class DDNMPlus(ConsistencyRule):
    """DDNM for observations with Gaussian noise (DDNM+, arXiv 2212.00490, sec. 3.3 and appendix).

    ``sigma_y`` is the noise level of y in units of images in [-1, 1]: twice that of images in [0, 1]. Needs an operator
    whose singular value decomposition is known. With ``sigma_y`` = 0 it still renoises what y determines with fresh
    noise alone, unlike DDNM.
    """

    sigma_y: float
    eta: float = 0.85

    def __post_init__(self) -> None:
        DDNM(self.eta)
        if not 0 <= self.sigma_y < inf:
            raise OptionError(f"the noise level is {self.sigma_y}; choose zero or a positive number")

    @property
    def needs_noise(self) -> bool:
        """Always: what the observation determines is renoised with fresh noise."""
        return True

    def bind(self, operator: LinearOperator, y: Tensor, levels: NoiseLevels, noises: StepNoises | None) -> DDNMPlusStep:
        """The rule for one observation ``y``. Raises OptionError for an operator without singular values."""
        if not isinstance(operator, DecomposableOperator):
            raise OptionError(
                f"{type(operator).__name__} has no known singular values, which noisy observations need; set noise to 0"
            )
        if noises is None:
            raise OptionError("DDNM+ needs the noise of every step, but no noises are given; draw them")
        observed = operator.pinv(y)
        return DDNMPlusStep(operator, operator.V_adjoint(observed), levels, self.sigma_y, self.eta, noises)


@dataclass(frozen=True, eq=False)
class DDNMPlusStep(AffineStep):
    """DDNM+ on one problem; ``observed`` holds the coefficients of A+ y in A's singular basis."""

    operator: DecomposableOperator
    observed: Tensor
    levels: NoiseLevels
    sigma_y: float
    eta: float
    noises: StepNoises

    def parts(self, i: int, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """One serial step: what y tells better than the state enters whole, the rest by its weight."""
        a, a_next = self.levels.alphas[i : i + 2].tolist()
        denoised = (x - sqrt(1 - a) * e) / sqrt(a)
        weights, fresh, seen = self.weights(a_next)
        z, kept = self.noises[i], sqrt(1 - self.eta**2)
        renoised = sqrt(1 - a_next) * (kept * e + self.eta * z)
        basis = self.operator.V_adjoint
        pull = weights * (self.observed - basis(denoised))
        swap = seen * (fresh * basis(z) - basis(renoised))
        return denoised + self.operator.V(pull), renoised + self.operator.V(swap)

    def weights(self, a_next: float) -> tuple[Tensor, Tensor, Tensor]:
        """Per singular value: the weight of the observation, the level of fresh noise, and whether A sees it at all.

        The noise that y brings in and the fresh noise add up to a variance of ``1 - a_next`` in every direction.
        """
        s = self.operator.singular_values(self.observed)
        seen = s > 0
        level = sqrt(1 - a_next)
        brought = sqrt(a_next) * self.sigma_y / torch.where(seen, s, 1)
        trusted = brought <= level
        partial = level * sqrt(1 - self.eta**2) / brought.clamp(min=torch.finfo(s.dtype).tiny)
        weights = seen * torch.where(trusted, 1, partial)
        fresh = torch.where(trusted, (level**2 - brought**2).clamp(min=0).sqrt(), self.eta * level)
        return weights, fresh, seen
