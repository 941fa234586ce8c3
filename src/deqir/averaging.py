"""The mean of a chain's last estimates of the clean image, as the restored image in place of the last one alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import sqrt

import torch
from torch import Tensor

from deqir.chain import SamplingChain
from deqir.errors import OptionError
from deqir.schedule import NoiseLevels
from deqir.solvers import Solution


@dataclass(eq=False)
class EstimateMean:
    """The mean of the clean images (B, C, H, W) that ``steps`` of a chain estimate, gathered as they come.

    The steps inject fresh noise into which the chain reads detail; its estimates scatter around what the observation
    supports, and their mean scatters less (averaging of iterates: Polyak and Juditsky, SIAM J. Control 1992). An
    estimate is the rule's clean image, which agrees with a noiseless observation, and so does the mean. With ``noisy``
    it is the network's own, ``(x_i - sqrt(1 - a_i) e_i) / sqrt(a_i)``: the rule's holds the noise of the observation,
    which it counts towards that of the next state.
    """

    steps: range
    levels: NoiseLevels
    noisy: bool = False
    _total: Tensor | None = field(default=None, repr=False)

    def __call__(self, i: int, x: Tensor, predicted: Tensor, clean: Tensor) -> None:
        """Take in what step ``i`` makes of its state ``x``; other steps are passed over."""
        if i not in self.steps:
            return
        alpha = float(self.levels.alphas[i])
        estimate = (x - sqrt(1 - alpha) * predicted) / sqrt(alpha) if self.noisy else clean
        share = estimate / len(self.steps)
        self._total = share if self._total is None else self._total + share

    @property
    def value(self) -> Tensor:
        """The mean, once every step was taken in."""
        assert self._total is not None
        return self._total

    def of(self, chain: SamplingChain, solution: Solution) -> Solution:
        """Take in the estimates in the states of a parallel ``solution``: one more sequential call of the network.

        The solution holds one state more than there are steps, at least, or all.

        Returns the solution with that call in its counts.
        """
        every = torch.cat([chain.initial_noise[None], solution.states])
        states = every[self.steps.start - self.steps.stop - 1 : -1]
        timesteps = chain.step.levels.timesteps[self.steps.start : self.steps.stop].to(states.device)
        repeated = timesteps.repeat_interleave(chain.image_count)
        predictions = chain.predict(states.flatten(0, 1), repeated).view_as(states)
        for i, state, predicted in zip(self.steps, states, predictions, strict=True):
            self(i, state, predicted, chain.step.parts(i, state, predicted)[0])
        count = len(self.steps)
        return replace(solution, sweeps=solution.sweeps + 1, evaluations=solution.evaluations + count)


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
