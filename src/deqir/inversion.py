"""From an image to the initial noise that reproduces it: the deterministic chain of a prior, solved backwards.

The chain with eta 0 is ``x_{i+1} = d_i x_i + c_i eps(x_i)``, with ``d_i = sqrt(a_{i+1} / a_i)`` and
``c_i = sqrt(1 - a_{i+1}) - d_i sqrt(1 - a_i)`` (DDIM, arXiv 2010.02502, eq. 12). Backwards every step is implicit in
its own state; DDIM inversion as published evaluates eps one state too late instead, and does not come back. Here all
states from x_{S-1} to x_0 are one equilibrium: each sweep predicts the noise in all of them at once and replays the
chain from the image down with the linearised predictions ``E_i + J_i (x_i - X_i)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deqir.chain import SamplingChain
from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.initialization import NoiseOptimizer
from deqir.jacobian import BandedJacobian
from deqir.losses import Distance
from deqir.metrics import psnr
from deqir.operators import Unobserved
from deqir.precision import GREY_LEVELS_PER_UNIT, finest_dtype
from deqir.preconditioner import BandedSecant
from deqir.restoration import Restorer

SETTLED = 0.1
"""The share of the tolerance within which a state, and all between it and the image, is evaluated no more."""


@dataclass(frozen=True, eq=False)
class Inversion:
    """An inverted batch: ``noise`` (B, C, H, W) is x_0, of which the chain makes ``image`` (B, C, H, W) in [0, 1].

    ``round_trip`` (B,) is the PSNR of that image to the given one in dB, measured by running the chain. ``sweeps`` and
    ``nfe`` (one an image) count network calls that had to wait for each other and images handed to the network, those
    of the measurement left out. ``defects`` (sweeps, B) is the root mean square by which the states fail the chain's
    equations, summed over the chain, in grey levels of 0..255.
    """

    noise: Tensor
    image: Tensor
    round_trip: Tensor
    sweeps: int
    nfe: tuple[int, ...]
    defects: Tensor


def unconditional(restorer: Restorer) -> Restorer:
    """The prior's own deterministic sampler with the settings of ``restorer``, observing nothing."""
    return replace(restorer, operator=Unobserved(), eta=0.0, noise=0.0, rule="auto", travel_repeat=1)


def generate(restorer: Restorer, noise: Tensor) -> Tensor:
    """The images (B, C, H, W), nominally in [0, 1], that the prior's deterministic sampler makes of ``noise``."""
    return unconditional(restorer).restore(torch.zeros_like(noise), initial_noise=noise).image


def interpolate(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Noises on the great circle from ``first`` to ``second``, both (1, C, H, W): one a weight in [0, 1].

    Spherical interpolation (DDIM, app. D.5) keeps the norm that a chain expects, where a straight line would not.
    Raises ShapeError for noises of different shapes.
    """
    if first.shape != second.shape or len(first) != 1:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ShapeError(f"the noises have shapes {shapes}; give two of one shape (1, C, H, W)")
    cosine = torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0).clamp(-1, 1)
    angle = cosine.arccos()
    if float(angle.sin()) < 1e-6:
        return torch.lerp(first, second, weights.to(first).view(-1, 1, 1, 1))
    t = weights.to(first).view(-1, 1, 1, 1)
    return (((1 - t) * angle).sin() * first + (t * angle).sin() * second) / angle.sin()


def invert(
    restorer: Restorer,
    image: Tensor,
    tolerance: float = 0.05,
    max_sweeps: int = 40,
    progress: Callable[[int, Tensor], None] | None = None,
) -> Inversion:
    """The noise that reproduces ``image`` (B, C, H, W) in [0, 1] under the prior's deterministic sampler.

    ``restorer`` says the prior, steps, spacing, device, dtype and max_batch; its operator and eta do not matter. It
    ends when the defects, summed over the chain, are within ``tolerance`` grey levels, or after ``max_sweeps``; the
    states of the smallest defect count. Raises ShapeError where the image has not the prior's channels, NonFiniteError
    for NaN in it or from the network, OptionError where an option is out of its range.
    """
    if not tolerance >= 0 or max_sweeps < 1:
        raise OptionError(f"tolerance is {tolerance} and max_sweeps {max_sweeps}; choose zero or more, and at least 1")
    if image.ndim != 4 or image.shape[1] != restorer.prior.channels:
        raise ShapeError(
            f"the image has shape {tuple(image.shape)}; the prior {restorer.prior.name} takes "
            f"(B, {restorer.prior.channels}, H, W)"
        )
    if not bool(image.isfinite().all()):
        raise NonFiniteError("the image holds NaN or infinite values; give finite ones")
    sampler = unconditional(restorer)
    with torch.no_grad():
        search = _ReversedChain(sampler.chain(torch.zeros_like(image)), 2 * image - 1)
        search.run(tolerance / GREY_LEVELS_PER_UNIT, max_sweeps, progress)
    noise = search.best[0]
    again = generate(restorer, noise)
    counts = tuple(search.evaluations.tolist())
    defects = torch.stack(search.defects).cpu() * GREY_LEVELS_PER_UNIT
    return Inversion(noise, again, psnr(again, image.to(again)), len(defects), counts, defects)


def refine(restorer: Restorer, image: Tensor, noise: Tensor, iterations: int = 10) -> Inversion:
    """Inversion by optimisation: ``noise`` (1, C, H, W), moved by L-BFGS until the sampler makes ``image`` of it.

    From where ``invert`` ended, or from any noise where a chain has no inverse; ``image`` (1, C, H, W) lies in [0, 1].
    ``sweeps`` and ``nfe`` are zero here, and there are no defects. Raises what ``NoiseOptimizer`` raises.
    """
    sampler = unconditional(restorer)
    search = NoiseOptimizer(sampler, [(1.0, Distance(image))], iterations, "lbfgs")
    found = search.run(torch.zeros_like(image), initial_noise=noise)
    again = found.image.detach()
    return Inversion(found.noise[0], again, psnr(again, image.to(again)), 0, (0,), torch.empty(0, 1))


class _ReversedChain:
    """The states x_0 .. x_{S-1} (S, B, C, H, W) on their way to the image x_S."""

    def __init__(self, chain: SamplingChain, image: Tensor):
        self.chain = chain
        self.image = image.to(chain.initial_noise)
        alphas = chain.step.levels.alphas
        self.scale = (alphas[1:] / alphas[:-1]).sqrt().tolist()
        spread = (1 - alphas).clamp(min=0).sqrt()
        self.share = (spread[1:] - (alphas[1:] / alphas[:-1]).sqrt() * spread[:-1]).tolist()
        settings = BandedSecant()
        self.jacobian = BandedJacobian(
            1 - alphas[:-1],
            self.image,
            bands=settings.bands,
            variance=settings.variance,
            corner=settings.corner,
            decay=settings.decay,
            trust=settings.trust,
            directions=0,
            ridge=settings.ridge,
        )
        still = torch.zeros(len(chain), *self.image.shape, dtype=self.image.dtype, device=self.image.device)
        self.states = self.best = self._replayed(still, still)
        self.before: tuple[Tensor, Tensor] | None = None
        self.unsettled = torch.ones(still.shape[:2], dtype=torch.bool, device=still.device)
        self.evaluations = torch.zeros(len(image), dtype=torch.long)
        self.smallest = torch.full((len(image),), torch.inf, dtype=finest_dtype(still.device), device=still.device)
        self.defects: list[Tensor] = []

    def run(self, tolerance: float, max_sweeps: int, progress: Callable[[int, Tensor], None] | None) -> None:
        """Sweep until the defects of every image are within ``tolerance``, in chain units, or no better for long."""
        while len(self.defects) < max_sweeps:
            predictions = self._predicted()
            defect = self._defect(predictions)
            if not bool(defect.isfinite().all()):
                raise NonFiniteError("the prior gave NaN or infinite noise; check the prior and the dtype")
            self.defects.append(defect)
            better = (defect < self.smallest).view(1, -1, 1, 1, 1)
            self.best = torch.where(better, self.states, self.best)
            self.smallest = torch.minimum(defect, self.smallest)
            if progress is not None:
                progress(len(self.defects), defect * GREY_LEVELS_PER_UNIT)
            if bool((self.smallest <= tolerance).all()):
                return
            self._move(predictions, tolerance)

    def _predicted(self) -> Tensor:
        """E at the states; those that settled keep theirs."""
        count = len(self.chain)
        timesteps = self.chain.step.levels.timesteps.to(self.image.device).view(-1, 1).expand(count, len(self.image))
        predictions = torch.zeros_like(self.states) if self.before is None else self.before[1].clone()
        predictions[self.unsettled] = self.chain.predict(self.states[self.unsettled], timesteps[self.unsettled])
        self.evaluations += self.unsettled.sum(0).cpu()
        return predictions

    def _defect(self, predictions: Tensor) -> Tensor:
        """How far the states are from being a chain, (B,): root mean squares, summed over the steps."""
        following = torch.cat([self.states[1:], self.image[None]])
        stepped = self._per_step(self.scale) * self.states + self._per_step(self.share) * predictions
        return (following - stepped).square().flatten(2).mean(2).to(self.smallest.dtype).sqrt().sum(0)

    def _move(self, predictions: Tensor, tolerance: float) -> None:
        if self.before is not None:
            self.jacobian.learn_pair(self.states - self.before[0], predictions - self.before[1])
        self.before = (self.states, predictions)
        moved = self._replayed(self.states, predictions)
        change = (moved - self.states).square().flatten(2).mean(2).sqrt()
        # From the image's end: a state is settled when it and all between it and the image hardly moved.
        self.unsettled = (change > SETTLED * tolerance).flip(0).long().cummax(0).values.flip(0).bool()
        self.states = moved

    def _replayed(self, states: Tensor, predictions: Tensor) -> Tensor:
        """The chain from the image down, each state solved from its linearised equation."""
        current, replayed = self.image, []
        for i in reversed(range(len(self.chain))):
            missing = current - self.share[i] * predictions[i] - self.scale[i] * states[i]
            gains = 1 / (self.scale[i] + self.share[i] * self.jacobian.gains[i])
            current = states[i] + self.jacobian.bands.filter(missing, gains)
            replayed.append(current)
        return torch.stack(replayed[::-1])

    def _per_step(self, values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=self.image.dtype, device=self.image.device).view(-1, 1, 1, 1, 1)
