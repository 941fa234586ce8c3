"""The adjoint of a solved chain: a linear chain of its own that runs from the image back to the noise.

For a loss L of the states, the costate ``l_k = dL/dx_k`` counts every way in which x_k reaches L. With the step
``x_{i+1} = step_i(x_i, e_i)`` and ``e_i = eps(x_i)``,

    l_i = (d step_i / d x_i)^T l_{i+1} + (d eps / d x_i)^T v_i + g_i,      v_i = (d step_i / d e_i)^T l_{i+1},

where g_i is what L says of x_i directly. Backpropagation walks this serially. It is as causal as the chain itself, so
the same solvers find all costates at once: freeze the network's share of every costate, replay the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deqir.batching import Batcher, Network
from deqir.chain import SamplingChain
from deqir.jacobian import BandedJacobian
from deqir.preconditioner import BandedSecant
from deqir.solvers import CausalMap


@dataclass(frozen=True, eq=False)
class TransposedNetwork:
    """The network's vector-Jacobian product, in the form of a network: it takes state and vector on one axis."""

    denoiser: Network

    def __call__(self, states_and_vectors: Tensor, timesteps: Tensor) -> Tensor:
        """``(d eps / d x)^T v`` (N, C, H, W) for x and v stacked as (N, 2 C, H, W) at ``timesteps`` (N,)."""
        states, vectors = states_and_vectors.detach().chunk(2, dim=1)
        with torch.enable_grad():
            states.requires_grad_()
            predictions = self.denoiser(states, timesteps)
        return torch.autograd.grad(predictions, states, vectors)[0]


@dataclass(frozen=True, eq=False)
class CostateChain:
    """The costates of a solved chain, in the order in which they follow from each other.

    ``states`` (S + 1, B, C, H, W) holds x_0 .. x_S, ``direct`` of the same shape the direct gradients g_0 .. g_S. The
    unknowns are l_{S-1} .. l_0, (S, B, C, H, W); position p belongs to state S - 1 - p.
    """

    chain: SamplingChain
    states: Tensor
    direct: Tensor
    batcher: Batcher = field(init=False, repr=False)

    def __post_init__(self) -> None:
        network = TransposedNetwork(self.chain.denoiser)
        object.__setattr__(self, "batcher", Batcher(network, self.chain.max_batch, BACKWARD_COST))

    def __len__(self) -> int:
        return len(self.chain)

    def sweep(self, costates: Tensor, prefix: Tensor, stop: Tensor) -> Tensor:
        """All costates anew from the network's share in the old ones; arguments as for ``SamplingChain.sweep``."""
        whole = torch.cat([self.direct[-1:], costates])
        needed = self._needed(prefix, stop)
        responses = self._respond(self._vectors(whole, needed), needed)
        first, last = int(prefix.min()), int(torch.where(prefix < stop, stop, 0).max())
        walk = list(self._walk(first, last, whole, responses, prefix, None))
        kept = ~needed.view(*needed.shape, 1, 1, 1)
        fresh = torch.cat([costates[:first], *(part[None] for part in walk), costates[last:]])
        return torch.where(kept, costates, fresh)

    def preconditioned_sweep(self, model: CostateModel) -> CausalMap:
        """A sweep in which ``model`` says how the network's share follows the costates; it learns from every call."""

        def sweep(costates: Tensor, prefix: Tensor, stop: Tensor) -> Tensor:
            whole = torch.cat([self.direct[-1:], costates])
            needed = self._needed(prefix, stop)
            vectors = self._vectors(whole, needed)
            model.learn(vectors, self._respond(vectors, needed), needed)
            return self._replayed(whole, prefix, model)

        return sweep

    def model_start(self, model: CostateModel) -> Tensor:
        """The costates of the model alone, (S, B, C, H, W): no network call."""
        whole = torch.cat([self.direct[-1:], torch.zeros_like(self.states[1:])])
        return self._replayed(whole, torch.zeros(whole.shape[1], dtype=torch.long, device=whole.device), model)

    def _replayed(self, whole: Tensor, prefix: Tensor, model: CostateModel) -> Tensor:
        first = int(prefix.min())
        walk = self._walk(first, len(self), whole, model.responses, prefix, model)
        return torch.stack([*whole[1 : first + 1], *walk])

    def _needed(self, prefix: Tensor, stop: Tensor) -> Tensor:
        position = torch.arange(len(self), device=prefix.device).view(-1, 1)
        return (position >= prefix) & (position < stop)

    def _vectors(self, whole: Tensor, needed: Tensor) -> Tensor:
        """v of every position that some image needs, zero elsewhere, (S, B, C, H, W)."""
        vectors = torch.zeros_like(whole[1:])
        for position in needed.any(1).nonzero().flatten().tolist():
            vectors[position] = self.chain.step.transpose(self._state(position), whole[position])[1]
        return vectors

    def _respond(self, vectors: Tensor, needed: Tensor) -> Tensor:
        """The network's share ``(d eps / d x)^T v`` where it is needed, zero elsewhere."""
        inputs = self.states[:-1].flip(0)
        timesteps = self.chain.step.levels.timesteps.flip(0).to(vectors.device).view(-1, 1).expand(needed.shape)
        responses = torch.zeros_like(vectors)
        packed = torch.cat([inputs[needed], vectors[needed]], dim=1)
        responses[needed] = self.batcher(packed, timesteps[needed])
        return responses

    def _walk(
        self,
        first: int,
        last: int,
        whole: Tensor,
        responses: Tensor,
        prefix: Tensor,
        model: CostateModel | None,
    ) -> Iterator[Tensor]:
        """The costates at positions first .. last - 1; images keep their final ones."""
        current = whole[first]
        for position in range(first, last):
            i = self._state(position)
            to_state, vector = self.chain.step.transpose(i, current)
            share = responses[position] if model is None else model.predict(position, vector)
            ahead = (prefix <= position).view(-1, 1, 1, 1)
            current = torch.where(ahead, to_state + share + self.direct[i], whole[position + 1])
            yield current

    def _state(self, position: int) -> int:
        return len(self) - 1 - position


BACKWARD_COST = 4
"""How many times the memory of a plain network call one that can be differentiated is taken to need."""


class CostateModel(BandedJacobian):
    """The model of one adjoint solve: a banded Jacobian, and the newest exact pair of every position.

    ``vectors`` and ``responses`` (S, B, C, H, W) are the pairs; zero gives zero, the first of them. The adjoint being
    linear, a pair stays true however far the costates move, and there is no trust region.
    """

    def __init__(self, settings: BandedSecant, costates: CostateChain):
        like = costates.direct[-1]
        super().__init__(
            (1 - costates.chain.step.levels.alphas[:-1]).flip(0),
            like,
            bands=settings.bands,
            variance=settings.variance,
            corner=settings.corner,
            decay=settings.decay,
            trust=settings.trust,
            directions=settings.directions,
            ridge=settings.ridge,
        )
        self.vectors = self.responses = torch.zeros_like(costates.direct[1:])

    def predict(self, position: int, vector: Tensor) -> Tensor:
        """The network's share in a costate, for ``vector`` v (B, C, H, W)."""
        return self.responses[position] + self.respond(position, vector - self.vectors[position])

    def learn(self, vectors: Tensor, responses: Tensor, evaluated: Tensor) -> None:
        """Take in new pairs (S, B, C, H, W) where ``evaluated`` (S, B) is true.

        One that is not finite teaches nothing of the Jacobian, but stands for its position all the same: a costate
        that is NaN must not become what the model makes of an older pair.
        """
        moved, changed = vectors - self.vectors, responses - self.responses
        taken = evaluated[..., None, None, None]
        usable = taken & (moved.isfinite() & changed.isfinite()).flatten(2).all(2)[..., None, None, None]
        self.learn_pair(torch.where(usable, moved, 0), torch.where(usable, changed, 0), kept=evaluated)
        self.vectors = torch.where(taken, vectors, self.vectors)
        self.responses = torch.where(taken, responses, self.responses)
