"""The mean of a chain's last estimates of the clean image, as the restored image in place of the last one alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import sqrt

import torch
from torch import Tensor

from deqir.chain import SamplingChain
from deqir.consistency.base import AffineStep, SectionStep
from deqir.errors import OptionError
from deqir.schedule import NoiseLevels
from deqir.solvers import Solution

AVERAGE = 0.05
"""The noise up to which the command line and the web page average, where nothing else is said (docs/choosing.md)."""


@dataclass(frozen=True, eq=False)
class EstimateMean:
    """The mean of the clean images (B, C, H, W) that ``steps`` of a chain at ``levels`` estimate.

    The steps inject fresh noise into which the chain reads detail; its estimates scatter around what the observation
    supports, and their mean scatters less (averaging of iterates: Polyak and Juditsky, SIAM J. Control 1992). An
    estimate is the rule's clean image, which agrees with a noiseless observation, and so does the mean. With ``noisy``
    it is the network's own, ``(x_i - sqrt(1 - a_i) e_i) / sqrt(a_i)``: the rule's holds the noise of the observation,
    which it counts towards that of the next state.
    """

    steps: range
    levels: NoiseLevels
    noisy: bool = False

    def estimate(self, i: int, x: Tensor, predicted: Tensor, clean: Tensor) -> Tensor:
        """What step ``i`` makes of its state ``x`` and the noise ``predicted`` in it; ``clean`` is the rule's."""
        alpha = float(self.levels.alphas[i])
        return (x - sqrt(1 - alpha) * predicted) / sqrt(alpha) if self.noisy else clean


@dataclass(eq=False)
class WalkedMean:
    """The mean of what a serial chain estimates, gathered as it comes: one image in memory."""

    mean: EstimateMean
    _total: Tensor | None = field(default=None, repr=False)

    def __call__(self, i: int, x: Tensor, predicted: Tensor, clean: Tensor) -> None:
        """Take in what step ``i`` makes of its state ``x``; other steps are passed over."""
        if i not in self.mean.steps:
            return
        share = self.mean.estimate(i, x, predicted, clean) / len(self.mean.steps)
        self._total = share if self._total is None else self._total + share

    @property
    def value(self) -> Tensor:
        """The mean, once every step was taken in."""
        assert self._total is not None
        return self._total


class ReplayedMean:
    """The mean of what a parallel solve estimates: every replay leaves its own, so that it costs no network call.

    ``watch`` makes the chain to be solved. An estimate of an image is as final as the state that its step makes.
    """

    def __init__(self, mean: EstimateMean):
        self.mean = mean
        self._estimates: dict[int, Tensor] = {}

    def watch(self, chain: SamplingChain) -> SamplingChain:
        """``chain`` with its replays watched."""
        return replace(chain, step=WatchedStep(chain.step, 0, len(chain), self))

    def take(self, i: int, x: Tensor, predicted: Tensor, clean: Tensor, open_images: Tensor) -> None:
        """Take in what step ``i`` makes of its state ``x`` of those images that ``open_images`` (B,) names."""
        estimate = self.mean.estimate(i, x, predicted, clean)
        before = self._estimates.get(i)
        before = torch.full_like(estimate, torch.nan) if before is None else before
        self._estimates[i] = torch.where(open_images.view(-1, 1, 1, 1), estimate, before)

    def of(self, chain: SamplingChain, solution: Solution) -> tuple[Solution, Tensor]:
        """The mean (B, C, H, W) with the solution that it belongs to.

        Where a solve ended before its replays came to every step, the network is called once for the states of
        ``solution``, which holds one state more than there are steps, at least, or all; that call is in its counts.
        """
        steps = self.mean.steps
        estimates = [self._estimates[i] for i in steps if i in self._estimates]
        if len(estimates) == len(steps) and not any(bool(estimate.isnan().any()) for estimate in estimates):
            return solution, torch.stack(estimates).mean(0)
        walked = WalkedMean(self.mean)
        every = torch.cat([chain.initial_noise[None], solution.states])
        states = every[steps.start - steps.stop - 1 : -1]
        timesteps = chain.step.levels.timesteps[steps.start : steps.stop].to(states.device)
        predictions = chain.predict(states.flatten(0, 1), timesteps.repeat_interleave(chain.image_count))
        for i, state, predicted in zip(steps, states, predictions.view_as(states), strict=True):
            walked(i, state, predicted, chain.step.parts(i, state, predicted)[0])
        counted = replace(solution, sweeps=solution.sweeps + 1, evaluations=solution.evaluations + len(steps))
        return counted, walked.value


@dataclass(frozen=True, eq=False)
class WatchedStep(SectionStep):
    """The steps ``start`` to before ``stop`` of ``step``, whose replays tell ``listener`` what they estimate."""

    listener: ReplayedMean

    def section(self, start: int, stop: int) -> AffineStep:
        """A part, watched too."""
        return WatchedStep(self.step, self.start + start, self.start + stop, self.listener)

    def replayed(self, i: int, x: Tensor, e: Tensor, clean: Tensor, open_images: Tensor) -> None:
        """Tell the listener of the steps that its mean is of."""
        if self.start + i in self.listener.mean.steps:
            self.listener.take(self.start + i, x, e, clean, open_images)

    def replay(
        self, states: Tensor, predictions: Tensor, prefix: Tensor, stop: Tensor, order: int | None = None
    ) -> Tensor:
        """The step's own, which may be in closed form; its estimates are those in the states that come of it."""
        replayed = self.step.section(self.start, self.stop).replay(states, predictions, prefix, stop, order)
        whole = torch.cat([states[:1], replayed])
        for i in range(len(self.levels)):
            inside = (prefix <= i) & (i < stop)
            if self.start + i in self.listener.mean.steps and bool(inside.any()):
                self.replayed(i, whole[i], predictions[i], self.parts(i, whole[i], predictions[i])[0], inside)
        return replayed


def averaged_steps(levels: NoiseLevels, below: float) -> range:
    """The last steps of a chain that begin at noise of at most ``below``, in units of images in [0, 1].

    A chain that travels in time walks some of them again: those after its last way back. At least the last step. Raises
    OptionError where ``below`` is negative or not a number.
    """
    if not below >= 0:
        raise OptionError(f"average is {below}; choose 0 (the last estimate alone) or a noise level in units of 0..1")
    first = len(levels) - 1
    while first > 0 and _noise(levels, first - 1) <= below and not _goes_back(levels, first - 1):
        first -= 1
    return range(first, len(levels))


def _noise(levels: NoiseLevels, i: int) -> float:
    alpha = float(levels.alphas[i])
    return sqrt((1 - alpha) / alpha) / 2


def _goes_back(levels: NoiseLevels, i: int) -> bool:
    return levels.step(i)[1] != float(levels.alphas[i + 1])
