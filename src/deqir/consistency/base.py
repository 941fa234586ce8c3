"""What every consistency rule shares: one affine step, and the replay of the chain from frozen predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor

from deqir.noise import StepNoises
from deqir.operators import LinearOperator
from deqir.schedule import NoiseLevels

Linearisation = Callable[[int, Tensor, Tensor], Tensor]
"""``predict(i, x, carried)``: the noise predicted in state i at x, of which ``carried`` is known to be noise."""


class AffineStep(ABC):
    """A rule bound to one problem: operator, observation, noise levels and the noise of every step.

    Index i runs over the S steps; B images travel together. ``noises`` is (S, B, C, H, W), or None where the rule
    draws none, or anything indexed like it.
    """

    levels: NoiseLevels

    @property
    def travels(self) -> bool:
        """Whether the rule knows the way in a chain that travels back in time."""
        return False

    @abstractmethod
    def parts(self, i: int, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """The clean image and the noise of the next state, ``x_{i+1} = sqrt(a_{i+1}) clean + noise``.

        From the state ``x_i`` and the predicted noise ``e_i``; all (B, C, H, W). A rule goes from and to the levels
        ``levels.step(i)``; where the chain travels back from there, ``TimeTravel`` takes over.
        """

    def first_state(self, noise: Tensor) -> Tensor:
        """x_0 (B, C, H, W) from standard Gaussian ``noise`` of that shape: the noise itself, for most rules."""
        return noise

    def __call__(self, i: int, x: Tensor, e: Tensor) -> Tensor:
        """``x_{i+1}`` (B, C, H, W) from the state ``x_i`` and the predicted noise ``e_i`` of the same shape."""
        return self.following(i, *self.parts(i, x, e))

    def following(self, i: int, clean: Tensor, noise: Tensor) -> Tensor:
        """``x_{i+1}`` from the ``parts`` of step i."""
        return sqrt(float(self.levels.alphas[i + 1])) * clean + noise

    def transpose(self, i: int, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """The transposed linear part: a cotangent of ``x_{i+1}`` (B, C, H, W) to those of ``x_i`` and ``e_i``."""
        with torch.enable_grad():
            x, e = (torch.zeros_like(cotangent, requires_grad=True) for _ in range(2))
            following = self(i, x, e)
        to_x, to_e = torch.autograd.grad(following, (x, e), cotangent, materialize_grads=True)
        return to_x, to_e

    def section(self, start: int, stop: int) -> AffineStep:
        """The steps from ``start`` to before ``stop`` as those of a chain of their own, numbered from 0."""
        return SectionStep(self, start, stop)

    def replayed(self, i: int, x: Tensor, e: Tensor, clean: Tensor, open_images: Tensor) -> None:  # noqa: B027
        """Hears what step i of a replay makes of ``x`` and ``e``, for the images that ``open_images`` (B,) names."""

    def replay(
        self, states: Tensor, predictions: Tensor, prefix: Tensor, stop: Tensor, order: int | None = None
    ) -> Tensor:
        """All states after the final ones, from frozen noise predictions.

        ``states`` (S + 1, B, C, H, W) holds x_0 .. x_S, of which image b's first ``prefix[b]`` + 1 are final;
        ``predictions`` (S, B, C, H, W) holds e_i for prefix[b] <= i < stop[b]. Returns x_1 .. x_S with the final ones
        and those after x_stop[b] kept. With ``order`` k, x_i is replayed from the old x_{i-k} where that comes after
        the final ones (equations of order k, ParaTAA, arXiv 2402.09970), else from the last final one.
        """
        first, last = span(prefix, stop)
        if first >= last:
            return states[1:]
        if order is None:
            replayed = [state for state, _ in self._walk(first, last, states, predictions, prefix, None)]
        else:
            walks = (
                self._walk(max(first, i - order), i, states, predictions, prefix, None)
                for i in range(first + 1, last + 1)
            )
            replayed = [list(walk)[-1][0] for walk in walks]
        return merged(states, torch.stack(replayed), first, prefix, stop)

    def replay_linearised(
        self, states: Tensor, predictions: Tensor, prefix: Tensor, predict: Linearisation
    ) -> tuple[Tensor, Tensor]:
        """Replay to the end; behind the first replayed state, ``predict`` says e_i for where that state has moved.

        Shapes as in ``replay``; states behind the window are replayed too. Also returns the noise that the last state
        is known to carry, (B, C, H, W).
        """
        first, last = int(prefix.min()), len(predictions)
        replayed, carried = zip(*self._walk(first, last, states, predictions, prefix, predict), strict=True)
        return torch.stack([*states[1 : first + 1], *replayed]), carried[-1]

    def hand_on(self, x: Tensor, carried: Tensor, first: int) -> Tensor:
        """x_{first+1} .. x_S from x_first, ``x`` (B, C, H, W), of which ``carried`` is noise: the image stays as it is.

        No network; every state gets the noise of its own step.
        """
        states = []
        for i in range(first, len(self.levels)):
            clean, noise = self.parts(i, x, carried)
            carried = self._unit_noise(i + 1, noise)
            x = self.following(i, clean, noise)
            states.append(x)
        return torch.stack(states)

    def _unit_noise(self, i: int, noise: Tensor) -> Tensor:
        """The ``noise`` in x_i, (B, C, H, W), at the scale of a prediction; zero noise where x_i has none."""
        return noise / sqrt(max(1 - float(self.levels.alphas[i]), 1e-12))

    def _walk(
        self,
        first: int,
        last: int,
        states: Tensor,
        predictions: Tensor,
        prefix: Tensor,
        predict: Linearisation | None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """x_{first+1} .. x_last, walked from the old x_first, and the noise in each; images keep their final ones."""
        current = states[first]
        carried = torch.zeros_like(current)
        for i in range(first, last):
            e = predictions[i] if predict is None or i == first else predict(i, current, carried)
            clean, noise = self.parts(i, current, e)
            carried = self._unit_noise(i + 1, noise)
            self.replayed(i, current, e, clean, prefix <= i)
            ahead = (prefix <= i).view(-1, 1, 1, 1)
            current = torch.where(ahead, self.following(i, clean, noise), states[i + 1])
            yield current, carried


@dataclass(frozen=True, eq=False)
class SectionStep(AffineStep):
    """The steps ``start`` to before ``stop`` of ``step``, numbered from 0."""

    step: AffineStep
    start: int
    stop: int
    levels: NoiseLevels = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", self.step.levels.section(self.start, self.stop))

    @property
    def travels(self) -> bool:
        """Whether the rule of the whole chain knows how."""
        return self.step.travels

    def parts(self, i: int, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the step in the whole chain."""
        return self.step.parts(self.start + i, x, e)

    def following(self, i: int, clean: Tensor, noise: Tensor) -> Tensor:
        """The state after the step in the whole chain."""
        return self.step.following(self.start + i, clean, noise)

    def transpose(self, i: int, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """The transposed step of the whole chain."""
        return self.step.transpose(self.start + i, cotangent)

    def section(self, start: int, stop: int) -> AffineStep:
        """A part of this part."""
        return self.step.section(self.start + start, self.start + stop)


def span(prefix: Tensor, stop: Tensor) -> tuple[int, int]:
    """The steps from the first to the last that some image asks for; an empty range where none does."""
    return int(prefix.min()), int(torch.where(prefix < stop, stop, 0).max())


def merged(states: Tensor, replayed: Tensor, first: int, prefix: Tensor, stop: Tensor) -> Tensor:
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

    def noise_count(self, levels: NoiseLevels) -> int:
        """How many noises a chain at ``levels`` draws where it draws any: one a step, for most rules."""
        return len(levels)
