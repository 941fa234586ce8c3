"""A cheap model of how the network's predictions change, learned while the chain is being solved.

Plain sweeps freeze the predicted noise: ``e_i = E_i``. A preconditioned sweep replays the chain with
``e_i = w (E_i + J_i (x_i - X_i)) + (1 - w) n_i``: linearised at the states X at which E was evaluated, as far as that
can be trusted, and otherwise simply the noise ``n_i`` that the replayed state is known to carry, which leaves the image
in it as it is. Where x_i = X_i the weight w is one, so the fixed point and the finite termination are those of the
plain sweep; a good J makes it a quasi-Newton method (DEER, Lim et al. 2024) with a trust region (ELK, Gonzalez et
al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deqir.bands import FrequencyBands
from deqir.errors import OptionError
from deqir.schedule import NoiseLevels
from deqir.secants import SecantMemory

CHUNK = 32
"""States whose spectra are held at a time."""


@dataclass(frozen=True)
class BandedSecant:
    """Settings of the learned Jacobian: a gain for each of ``bands`` of spatial frequency, and a few directions.

    It starts from the exact denoiser of Gaussian images with power spectrum ``p(f) ~ 1 / (f^2 + corner^2)`` and mean
    ``variance`` (in [-1, 1] units): ``J(f) = sqrt(1 - a) / (a p(f) + 1 - a)``. Every sweep mixes in (half and half)
    what the predictions tell of themselves: an exact denoiser has ``mean J = mean(E^2) / sqrt(1 - a)`` in every band
    (the Fisher information of its noisy images). From the second sweep on it regresses the change of the predictions
    on the change of the states, per state, image and band; older changes weigh ``decay`` per sweep, and the model
    counts as ``trust`` of the mean band. Gains are clipped to ``[0, 1 / sqrt(1 - a)]``, what a denoiser of any prior
    can have. The last ``directions`` changes are then matched exactly (a multi-secant update, damped by ``ridge``).

    ``reach`` is the trust region: a displacement of ``reach`` times the state's noise level has w = 1/2.
    ``start_variance`` replaces ``variance`` in the first guess of the chain, which is taken to be off by
    ``start_error``. States from the first on whose w fell below ``worth`` are not evaluated in the next sweep.
    """

    bands: int = 8
    decay: float = 0.5
    trust: float = 0.01
    variance: float = 0.2
    corner: float = 1 / 64
    directions: int = 3
    ridge: float = 0.01
    reach: float = 0.4
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
        positive = (self.trust, self.variance, self.corner, self.ridge, self.reach, self.start_variance)
        if not all(value > 0 for value in positive):
            raise OptionError(
                "trust, variance, corner, ridge, reach and start_variance of the preconditioner must be above zero"
            )

    def start(self, levels: NoiseLevels, like: Tensor) -> LearnedJacobian:
        """An untaught model for a chain at ``levels`` whose states are like ``like`` (B, C, H, W)."""
        return LearnedJacobian(self, levels, like)


class LearnedJacobian:
    """The model of one solve; ``gains`` (S, B, bands) float64 are those of the frequency bands.

    ``noise`` (S,) are the noise levels ``sqrt(1 - a_i)`` of the states, ``cap`` (S, 1, 1) the largest gains.
    """

    def __init__(self, settings: BandedSecant, levels: NoiseLevels, like: Tensor):
        self.settings = settings
        self.bands = FrequencyBands.of(like, settings.bands)
        variances = (1 - levels.alphas[:-1]).to(like.device)
        self.noise = variances.sqrt()
        self.cap = (1 / self.noise).view(-1, 1, 1)
        self.gaussian = self._gaussian(variances, settings.variance)
        self.model = self.gaussian.expand(-1, len(like), -1)
        self.first_guess = self._gaussian(variances, settings.start_variance).expand(-1, len(like), -1)
        self.gains = self.model
        self.products = torch.zeros_like(self.gains)
        self.squares = torch.zeros_like(self.gains)
        self.secants = SecantMemory(settings.directions, settings.ridge)
        self.before: tuple[Tensor, Tensor, Tensor] | None = None
        expected = self._trusted(self.noise.new_tensor(settings.start_error), self.noise)
        self.weights = expected.view(-1, 1).repeat(1, len(like))

    def horizon(self, prefix: Tensor) -> Tensor:
        """The first state behind ``prefix`` (B,) that moved too far to be worth evaluating yet, (B,) int64."""
        final = torch.arange(len(self.weights), device=prefix.device).view(-1, 1) <= prefix
        return (final | (self.weights >= self.settings.worth)).long().cumprod(0).sum(0)

    def _gaussian(self, variances: Tensor, variance: float) -> Tensor:
        """The gains of the exact denoiser of Gaussian images, (S, 1, bands)."""
        spectrum = 1 / (self.bands.radius.square() + self.settings.corner**2)
        power = variance / spectrum.mean() * spectrum
        parts = torch.split(variances.view(-1, 1, 1), CHUNK)
        return torch.cat([self.bands.mean(v.sqrt() / ((1 - v) * power + v)) for v in parts])[:, None]

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
        linearised = predictions[i] + self._response(i, displacement)
        weight = self._trusted(_rms(displacement), self.noise[i].to(x.dtype))
        self.weights[i] = weight.nan_to_num(0)
        weight = torch.where(evaluated[i] & weight.isfinite(), weight, 0).view(-1, 1, 1, 1)
        return torch.where(weight > 0, weight * linearised, 0) + (1 - weight) * carried

    def _response(self, i: int, displacement: Tensor) -> Tensor:
        """``J_i d`` for a displacement (B, C, H, W): the bands' gains, and what they miss of remembered directions."""
        moves, gains = self.secants.directions(i), self.gains[i]
        if moves is None:
            return self.bands.filter(displacement, gains)
        filtered = self.bands.filter(torch.cat([displacement[:, None], moves], 1), gains[:, None])
        return filtered[:, 0] + self.secants.correction(i, displacement, moves, filtered[:, 1:])

    def _trusted(self, distance: Tensor, noise: Tensor) -> Tensor:
        """The weight in [0, 1] of a linearisation ``distance`` away at noise level ``noise``."""
        return 1 / (1 + (distance / (self.settings.reach * noise)).square())

    def learn(self, inputs: Tensor, predictions: Tensor, evaluated: Tensor) -> None:
        """Take in what the network made of ``inputs``, both (S, B, C, H, W), where ``evaluated`` (S, B) is true."""
        self._mix_own_power(predictions, evaluated)
        if self.before is not None:
            old_inputs, old_predictions, old_evaluated = self.before
            moved, changed = inputs - old_inputs, predictions - old_predictions
            usable = evaluated & old_evaluated & _finite(moved) & _finite(changed)
            kept = usable[..., None, None, None]
            moved, changed = torch.where(kept, moved, 0), torch.where(kept, changed, 0)
            self._regress(moved, changed)
            self.secants.push(moved, changed)
        else:
            self.gains = self.model
        self.before = (inputs, predictions, evaluated)

    def _mix_own_power(self, predictions: Tensor, evaluated: Tensor) -> None:
        """Replace the model of evaluated states by the mean of the Gaussian one and the predictions' own power."""
        power = torch.cat([self._products(part, part) for part in torch.split(predictions, CHUNK)])
        sizes = self.bands.sum(torch.ones_like(self.bands.radius)).clamp(min=1) * predictions.shape[2]
        own = (power / sizes * self.cap).minimum(self.cap)
        usable = evaluated[..., None] & own.isfinite()
        self.model = torch.where(usable, (own + self.gaussian) / 2, self.model)

    def _products(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner products of two stacks of images (n, B, C, H, W) in every band, (n, B, bands) float64."""
        first = torch.fft.rfft2(a, norm="ortho")
        second = first if a is b else torch.fft.rfft2(b, norm="ortho")
        return self.bands.sum((first.conj() * second).real.sum(2).double())

    def _regress(self, moved: Tensor, changed: Tensor) -> None:
        settings = self.settings
        weight = self._trusted(_rms(moved), self.noise.view(-1, 1).to(moved.dtype)).square()[..., None].double()
        pairs = list(zip(torch.split(moved, CHUNK), torch.split(changed, CHUNK), strict=True))
        products = weight * torch.cat([self._products(d, g) for d, g in pairs])
        squares = weight * torch.cat([self._products(d, d) for d, _ in pairs])
        sound = (products.isfinite() & squares.isfinite()).all(-1, keepdim=True)
        self.products = settings.decay * self.products + torch.where(sound, products, 0)
        self.squares = settings.decay * self.squares + torch.where(sound, squares, 0)
        prior = settings.trust * self.squares.mean(-1, keepdim=True) + 1e-12
        learned = (self.products + prior * self.model) / (self.squares + prior)
        self.gains = learned.clamp(min=0).minimum(self.cap)


def _rms(images: Tensor) -> Tensor:
    """The root mean square over the last three axes."""
    return images.square().mean((-3, -2, -1)).sqrt()


def _finite(images: Tensor) -> Tensor:
    return images.isfinite().flatten(-3).all(-1)
