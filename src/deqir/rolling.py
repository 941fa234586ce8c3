"""A chain of which only a window of states is held, so that memory does not grow with the number of steps."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from deqir.chain import SamplingChain
from deqir.preconditioner import BandedSecant


class RollingChain:
    """The ``held`` states of ``chain`` that follow its first ``base``, which are final and forgotten.

    ``sweep`` and ``slide`` are what ``deqir.solvers.solve`` asks for. With a ``preconditioner`` the sweep is the
    linearised one, and its model slides along. States that enter are those of ``start`` (S, B, C, H, W), where it is
    given; else the image of the last state held, handed on without the network, or without a preconditioner the
    published start, x_0.
    """

    def __init__(
        self, chain: SamplingChain, held: int, preconditioner: BandedSecant | None = None, start: Tensor | None = None
    ):
        self.chain, self.held, self.start, self.base = chain, held, start, 0
        self.part = chain.section(0, held, chain.initial_noise)
        self.untaught, self.jacobian = None, None
        if preconditioner is not None:
            self.untaught = preconditioner.start(chain.step.levels, chain.initial_noise)
            if start is not None:
                self.untaught.weights.fill_(1)  # a start that somebody gives is worth a look at every state
            self.jacobian = self.untaught.section(0, held)
        self.carried = self.clean = chain.initial_noise

    @property
    def sees_end(self) -> bool:
        """Whether the last state of the chain is held."""
        return self.base + self.held == len(self.chain)

    def first(self) -> Tensor:
        """The states held before the first sweep, (held, B, C, H, W)."""
        if self.start is not None:
            return self.start[: self.held]
        if self.jacobian is not None:
            return self.part.model_start(self.jacobian)
        return self.part.repeated_noise_start()

    def horizon(self, prefix: Tensor) -> Tensor:
        """The first state held that is not worth evaluating yet, (B,)."""
        assert self.jacobian is not None, "there is no horizon without a model"
        return self.jacobian.horizon(prefix)

    def sweep(self, states: Tensor, prefix: Tensor, stop: Tensor) -> Tensor:
        """F(X) of the states held, (held, B, C, H, W).

        Afterwards ``clean`` (B, C, H, W) is the image that they tell of so far, ``carried`` the noise in the last.
        """
        if self.jacobian is None:
            whole = torch.cat([self.part.initial_noise[None], states])
            predictions = self.part.evaluate(whole[:-1], prefix, stop)
            last = int(stop.max()) - 1
            self.clean = self.part.step.parts(last, whole[last], predictions[last])[0]
            return self.part.step.replay(whole, predictions, prefix, stop, self.chain.order)
        replayed, self.carried = self.part.linearised_sweep(self.jacobian, states, prefix, stop)
        alpha = float(self.part.step.levels.alphas[-1])
        self.clean = (replayed[-1] - sqrt(1 - alpha) * self.carried) / sqrt(alpha)
        return replayed

    def slide(self, states: Tensor, count: int) -> Tensor:
        """Forget the first ``count`` of ``states`` (held, B, C, H, W), let as many enter, return what is held."""
        self.base += count
        stop = self.base + self.held
        self.part = self.chain.section(self.base, stop, states[count - 1])
        if self.jacobian is not None and self.untaught is not None:
            self.jacobian.slide(self.untaught.section(stop - count, stop))
        return torch.cat([states[count:], self._entering(states[-1], count)])

    def _entering(self, last: Tensor, count: int) -> Tensor:
        if self.start is not None:
            stop = self.base + self.held
            return self.start[stop - count : stop]
        if self.jacobian is not None:
            return self.part.step.hand_on(last, self.carried, self.held - count)
        return self.chain.initial_noise.expand(count, *last.shape)
