"""The sampling chain: one step, the serial walk, and the sweep over all timesteps at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from deqir.batching import Batcher, Network
from deqir.consistency import AffineStep
from deqir.errors import OptionError, ShapeError
from deqir.preconditioner import LearnedJacobian
from deqir.solvers import CausalMap, Solution, Status

Estimates = Callable[[int, Tensor, Tensor, Tensor], None]
"""Called with the number of a step, its state, the noise predicted in it, and the clean image of the rule."""


@dataclass(frozen=True, eq=False)
class SamplingChain:
    """A restoration chain x_0 .. x_S with all its noise given, so that it is a deterministic map.

    ``initial_noise`` is x_0 (B, C, H, W); ``max_batch`` bounds the images in one network call (None: chosen by size
    and memory). ``order`` k makes a plain sweep replay every state from the old state at most k before it (None: from
    the last final one): the equations of order k of ParaTAA (arXiv 2402.09970), which have the same solution. Raises
    OptionError where one of the two is below 1, or the levels travel in time and the step does not.
    """

    denoiser: Network
    step: AffineStep
    initial_noise: Tensor
    max_batch: int | None = None
    order: int | None = None
    shared_batcher: Batcher | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.initial_noise.ndim != 4:
            raise ShapeError(f"initial noise has shape {tuple(self.initial_noise.shape)}; give (batch, C, H, W)")
        if self.max_batch is not None and self.max_batch < 1:
            raise OptionError(f"max_batch is {self.max_batch}; choose at least 1")
        if self.order is not None and self.order < 1:
            raise OptionError(f"order is {self.order}; choose at least 1")
        if self.step.levels.descents is not None and not self.step.travels:
            raise OptionError("the noise levels travel in time, but the rule does not; wrap it in TimeTravel")

    def __len__(self) -> int:
        return len(self.step.levels)

    @property
    def image_count(self) -> int:
        """B, the images restored together."""
        return len(self.initial_noise)

    @cached_property
    def batcher(self) -> Batcher:
        """The denoiser, called within ``max_batch`` and what memory has turned out to hold."""
        return self.shared_batcher or Batcher(self.denoiser, self.max_batch)

    def section(self, start: int, stop: int, first_state: Tensor) -> SamplingChain:
        """The steps from ``start`` to before ``stop`` as a chain of their own, from ``first_state`` x_start on."""
        step = self.step.section(start, stop)
        return replace(self, step=step, initial_noise=first_state, shared_batcher=self.batcher)

    def predict(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The predicted noise in ``x`` (N, C, H, W) at ``timesteps`` (N,), at most ``max_batch`` at a time.

        Raises ShapeError where the denoiser gives another shape.
        """
        predicted = self.batcher(x, timesteps)
        if predicted.shape != x.shape:
            raise ShapeError(
                f"the prior gave {tuple(predicted.shape)} for noisy images {tuple(x.shape)}; "
                "let it return the predicted noise in that shape"
            )
        return predicted

    def sample(
        self,
        progress: Callable[[int, Tensor], None] | None = None,
        estimates: Estimates | None = None,
    ) -> Tensor:
        """Walk the chain serially and return x_S (B, C, H, W).

        ``progress`` sees (steps done, state), ``estimates`` what every step makes of its state.
        """
        x = self.initial_noise
        for i, timestep in enumerate(self.step.levels.timesteps.tolist()):
            timesteps = torch.full((len(x),), timestep, device=x.device)
            predicted = self.predict(x, timesteps)
            clean, noise = self.step.parts(i, x, predicted)
            if estimates is not None:
                estimates(i, x, predicted, clean)
            x = self.step.following(i, clean, noise)
            if progress is not None:
                progress(i + 1, x)
        return x

    def sweep(self, states: Tensor, prefix: Tensor, stop: Tensor) -> Tensor:
        """F(X): every state recomputed from the noise predicted in all states at once.

        ``states`` (S, B, C, H, W) holds x_1 .. x_S; the first ``prefix[b]`` of image b are final: they are kept, and
        so are those from position ``stop[b]`` on. The network is evaluated on x_i for prefix[b] <= i < stop[b] alone,
        stop[b] - prefix[b] evaluations for image b. ``prefix`` and ``stop`` are (B,) int64. The result is exact at
        position ``prefix[b]``.
        """
        whole = torch.cat([self.initial_noise[None], states])
        return self.step.replay(whole, self.evaluate(whole[:-1], prefix, stop), prefix, stop, self.order)

    def evaluate(self, inputs: Tensor, prefix: Tensor, stop: Tensor) -> Tensor:
        """The noise predicted in ``inputs`` x_0 .. x_{S-1}, for prefix[b] <= i < stop[b], zero elsewhere."""
        needed = self._needed(prefix, stop)
        timesteps = self.step.levels.timesteps.to(inputs.device).view(-1, 1).expand(needed.shape)
        predictions = torch.zeros_like(inputs)
        predictions[needed] = self.predict(inputs[needed], timesteps[needed])
        return predictions

    def _needed(self, prefix: Tensor, stop: Tensor) -> Tensor:
        index = torch.arange(len(self), device=prefix.device).view(-1, 1)
        return (index >= prefix) & (index < stop)

    def preconditioned_sweep(self, jacobian: LearnedJacobian) -> CausalMap:
        """A sweep that replays with the linearised predictions of ``jacobian``, which learns from every call.

        It costs the network calls of ``sweep`` and has its fixed point and its guarantee. States behind ``stop`` are
        replayed too, without the network: they carry the image on.
        """

        return lambda states, prefix, stop: self.linearised_sweep(jacobian, states, prefix, stop)[0]

    def linearised_sweep(
        self, jacobian: LearnedJacobian, states: Tensor, prefix: Tensor, stop: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One preconditioned sweep, and the noise that the last state is known to carry, (B, C, H, W)."""
        whole = torch.cat([self.initial_noise[None], states])
        predictions = self.evaluate(whole[:-1], prefix, stop)
        jacobian.learn(whole[:-1], predictions, self._needed(prefix, stop))
        return self.step.replay_linearised(whole, predictions, prefix, jacobian.predict)

    def model_start(self, jacobian: LearnedJacobian) -> Tensor:
        """The chain of the Gaussian image model, (S, B, C, H, W): no network, but the noise of every step."""
        x, states = self.initial_noise, []
        for i in range(len(self)):
            x = self.step(i, x, jacobian.guess(i, x))
            states.append(x)
        return torch.stack(states)

    def repeated_noise_start(self) -> Tensor:
        """The published start: every state is x_0, (S, B, C, H, W)."""
        return self.initial_noise.expand(len(self), *self.initial_noise.shape).clone()

    def noised_start(self, clean: Tensor) -> Tensor:
        """Every state is the guess ``clean`` (B, C, H, W), noised to its level with x_0's noise."""
        alphas = self.step.levels.alphas[1:].to(clean).view(-1, 1, 1, 1, 1)
        return alphas.sqrt() * clean + (1 - alphas).clamp(min=0).sqrt() * self.initial_noise


def serial_solution(
    chain: SamplingChain,
    keep: bool = False,
    progress: Callable[[int, Tensor], None] | None = None,
    estimates: Estimates | None = None,
) -> Solution:
    """The serial walk as a solution, exact after S sweeps; all its states with ``keep``, else the last alone.

    ``progress`` and ``estimates`` as in ``SamplingChain.sample``.
    """
    states: list[Tensor] = []
    broken = torch.full((chain.image_count,), -1, device=chain.initial_noise.device)

    def report(done: int, state: Tensor) -> None:
        nonlocal broken
        finite = state.isfinite().flatten(1).all(1)
        broken = torch.where((broken < 0) & ~finite, done - 1, broken)
        if keep:
            states.append(state)
        if progress is not None:
            progress(done, state)

    image = chain.sample(report, estimates)
    status = tuple(Status.CONVERGED if step < 0 else Status.NON_FINITE for step in broken.tolist())
    counts = torch.full((chain.image_count,), len(chain))
    empty = torch.empty(0, chain.image_count)
    exact = torch.zeros(chain.image_count)
    return Solution(torch.stack(states or [image]), status, counts, counts, empty, empty.long(), exact, broken.cpu())
