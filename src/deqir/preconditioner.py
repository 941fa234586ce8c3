"""A cheap model of how the network's predictions change, learned while the chain is being solved.

Plain sweeps freeze the predicted noise: ``e_i = E_i``. A preconditioned sweep replays the chain with
``e_i = w (E_i + J_i (x_i - X_i)) + (1 - w) n_i``: linearised at the states X at which E was evaluated, as far as that
can be trusted, and otherwise simply the noise ``n_i`` that the replayed state is known to carry, which leaves the image
in it as it is. Where x_i = X_i the weight w is one, so the fixed point and the finite termination are those of the
plain sweep; a good J makes it a quasi-Newton method (DEER, Lim et al. 2024) with a trust region (ELK, Gonzalez et
al. 2024).
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from deqir.errors import OptionError
from deqir.jacobian import CHUNK, BandedJacobian
from deqir.schedule import NoiseLevels
from deqir.secants import slid

PER_STATE = (
    "variances", "cap", "noise", "gaussian", "first_guess", "model", "gains", "products", "squares", "weights",
)  # fmt: skip
"""What a learned Jacobian holds for every state, apart from images."""


EARLY = 2
"""Network calls until the model counts as taught."""


@dataclass(frozen=True)
class BandedSecant:
    """Settings of the learned Jacobian: a gain for each of ``bands`` of spatial frequency, and a few directions.

    It starts from the exact denoiser of Gaussian images with power spectrum ``p(f) ~ 1 / (f^2 + corner^2)`` and mean
    ``variance`` (in [-1, 1] units): ``J(f) = sqrt(1 - a) / (a p(f) + 1 - a)``. Every sweep mixes in (half and half)
    what the predictions tell of themselves: an exact denoiser has ``mean J = mean(E^2) / sqrt(1 - a)`` in every band
    (the Fisher information of its noisy images). From the second sweep on it regresses the change of the predictions
    on the change of the states, per state, image and band; older changes weigh ``decay`` per sweep, and the model
    counts as ``trust`` of the mean band. Gains are clipped to ``[0, 1 / sqrt(1 - a)]``, what a denoiser of any prior
    can have. The last ``directions`` changes of a state and of its neighbours in noise are then matched exactly (a
    multi-secant update, damped by ``ridge``).

    ``reach`` is the trust region: a displacement of ``reach`` times the state's noise level has w = 1/2; from the
    third network call on it is ``taught_reach``.
    ``start_variance`` replaces ``variance`` in the first guess of the chain, which is taken to be off by
    ``start_error``. States from the first on whose w fell below ``worth`` are not evaluated in the next sweep.
    """

    bands: int = 8
    decay: float = 0.5
    trust: float = 0.1
    variance: float = 0.2
    corner: float = 1 / 64
    directions: int = 3
    ridge: float = 0.1
    reach: float = 0.4
    taught_reach: float = 0.6
    start_variance: float = 0.1
    start_error: float = 0.1
    worth: float = 0.1

    def __post_init__(self) -> None:
        if self.bands < 1:
            raise OptionError(f"bands is {self.bands}; choose at least 1")
        if self.directions < 0:
            raise OptionError(f"directions is {self.directions}; choose zero or more")
        if not 0 <= self.decay <= 1:
            raise OptionError(f"decay is {self.decay}; choose a number from 0 to 1")
        if not (self.start_error >= 0 and 0 <= self.worth < 1):
            raise OptionError(
                f"start_error is {self.start_error} and worth {self.worth}; choose zero or more, and 0 to below 1"
            )
        positive = ("trust", "variance", "corner", "ridge", "reach", "taught_reach", "start_variance")
        if not all(getattr(self, name) > 0 for name in positive):
            raise OptionError(f"{', '.join(positive[:-1])} and {positive[-1]} of the preconditioner must be above zero")

    def start(self, levels: NoiseLevels, like: Tensor) -> LearnedJacobian:
        """An untaught model for a chain at ``levels`` whose states are like ``like`` (B, C, H, W)."""
        return LearnedJacobian(self, levels, like)


class LearnedJacobian(BandedJacobian):
    """The model of one solve: a banded Jacobian with a trust region, and the predictions it was last linearised at.

    ``noise`` (S,) are the noise levels ``sqrt(1 - a_i)`` of the states, ``weights`` (S, B) trust in the last replay.
    """

    def __init__(self, settings: BandedSecant, levels: NoiseLevels, like: Tensor):
        super().__init__(
            1 - levels.alphas[:-1],
            like,
            bands=settings.bands,
            variance=settings.variance,
            corner=settings.corner,
            decay=settings.decay,
            trust=settings.trust,
            directions=settings.directions,
            ridge=settings.ridge,
        )
        self.settings = settings
        self.noise = self.variances.sqrt()
        self.gaussian = self.model
        self.first_guess = self.gaussian_gains(settings.start_variance).expand(-1, len(like), -1)
        self.before: tuple[Tensor, Tensor, Tensor] | None = None
        self.calls = 0
        expected = torch.full_like(self.noise, settings.start_error)
        self.weights = self._trusted(expected[:, None], slice(None)).repeat(1, len(like))

    def horizon(self, prefix: Tensor) -> Tensor:
        """The first state behind ``prefix`` (B,) that moved too far to be worth evaluating yet, (B,) int64."""
        final = torch.arange(len(self.weights), device=prefix.device).view(-1, 1) <= prefix
        return (final | (self.weights >= self.settings.worth)).long().cumprod(0).sum(0)

    def section(self, start: int, stop: int) -> LearnedJacobian:
        """The model of the steps from ``start`` to before ``stop``, as a chain of their own, untaught like this one."""
        part = copy(self)
        part.secants = self.secants.section(start, stop)
        for name in PER_STATE:
            setattr(part, name, getattr(self, name)[start:stop].clone())
        return part

    def slide(self, fresh: LearnedJacobian) -> None:
        """Forget the first states, as many as ``fresh`` has; those of ``fresh``, untaught, follow the others."""
        count = len(fresh.weights)
        for name in PER_STATE:
            setattr(self, name, torch.cat([getattr(self, name)[count:], getattr(fresh, name)]))
        self.secants.slide(count, fresh.secants)
        if self.before is not None:
            inputs, predictions, evaluated = (slid(part, count) for part in self.before)
            self.before = inputs, predictions, evaluated

    def guess(self, i: int, x: Tensor) -> Tensor:
        """The noise that the Gaussian model predicts in a state ``x`` (B, C, H, W) when no network has seen it."""
        return self.bands.filter(x, self.first_guess[i])

    def predict(self, i: int, x: Tensor, carried: Tensor) -> Tensor:
        """The predicted noise in state i replayed to ``x``, of which ``carried`` is known to be noise, (B, C, H, W).

        That is ``carried`` itself where the network has not looked.
        """
        assert self.before is not None, "the model is asked before the network"
        inputs, predictions, evaluated = self.before
        displacement = x - inputs[i]
        linearised = predictions[i] + self.respond(i, displacement)
        weight = self._trusted(_rms(displacement), i)
        self.weights[i] = weight.nan_to_num(0)
        weight = torch.where(evaluated[i] & weight.isfinite(), weight, 0).view(-1, 1, 1, 1)
        return torch.where(weight > 0, weight * linearised, 0) + (1 - weight) * carried

    def _trusted(self, distance: Tensor, states: int | slice) -> Tensor:
        """The weight in [0, 1] of a linearisation ``distance`` (..., B) away in these ``states``, in its dtype."""
        reach = self.settings.reach if self.calls <= EARLY else self.settings.taught_reach
        limit = reach * self.noise[states, None]
        return 1 / (1 + (distance / limit.to(distance.dtype)).square())

    def learn(self, inputs: Tensor, predictions: Tensor, evaluated: Tensor) -> None:
        """Take in what the network made of ``inputs``, both (S, B, C, H, W), where ``evaluated`` (S, B) is true."""
        self.calls += 1
        self._mix_own_power(predictions, evaluated)
        if self.before is not None:
            old_inputs, old_predictions, old_evaluated = self.before
            moved, changed = inputs - old_inputs, predictions - old_predictions
            usable = evaluated & old_evaluated & _finite(moved) & _finite(changed)
            kept = usable[..., None, None, None]
            moved, changed = torch.where(kept, moved, 0), torch.where(kept, changed, 0)
            weight = self._trusted(_rms(moved), slice(None)).square()
            self.learn_pair(moved, changed, weight, evaluated)
        else:
            self.gains = self.model
        self.before = (inputs, predictions, evaluated)

    def _mix_own_power(self, predictions: Tensor, evaluated: Tensor) -> None:
        """Replace the model of evaluated states by the mean of the Gaussian one and the predictions' own power."""
        power = torch.cat([self.inner_products(part, part) for part in torch.split(predictions, CHUNK)])
        sizes = self.bands.sum(torch.ones_like(self.bands.radius)).clamp(min=1) * predictions.shape[2]
        own = (power / sizes * self.cap).minimum(self.cap)
        usable = evaluated[..., None] & own.isfinite()
        self.model = torch.where(usable, (own + self.gaussian) / 2, self.model)


def _rms(images: Tensor) -> Tensor:
    """The root mean square over the last three axes."""
    return images.square().mean((-3, -2, -1)).sqrt()


def _finite(images: Tensor) -> Tensor:
    return images.isfinite().flatten(-3).all(-1)
