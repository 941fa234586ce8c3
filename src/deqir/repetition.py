"""Whether a network gives the same answer twice; a fixed point of all timesteps exists only then."""

from __future__ import annotations

import torch

from deqir.chain import SamplingChain
from deqir.errors import NondeterminismError

LARGEST_DIFFERENCE = 2e-3
"""Relative difference, root mean square, that counts as rounding: parallel sums on a GPU, half types among them."""


@torch.no_grad()
def difference_on_repetition(chain: SamplingChain) -> float:
    """How far two predictions for one and the same state lie apart, relative, root mean square.

    The state is the first image's initial noise at the first timestep: two evaluations of the network, where the chain
    needs S an image at least. NaN where the predictions are.
    """
    noise, timesteps = chain.initial_noise[:1], chain.step.levels.timesteps[:1].to(chain.initial_noise.device)
    first, second = (chain.predict(noise, timesteps) for _ in range(2))
    return float((first - second).norm() / first.norm().clamp(min=1e-12))


def is_repeatable(chain: SamplingChain) -> bool:
    """Whether the network of ``chain`` is deterministic up to rounding, as far as one state tells."""
    return not difference_on_repetition(chain) > LARGEST_DIFFERENCE


def require_repeatable(chain: SamplingChain, name: str) -> None:
    """Raise NondeterminismError unless the network of ``chain``, the prior called ``name``, is repeatable."""
    if not is_repeatable(chain):
        raise NondeterminismError(
            f"the prior {name} answers differently to the same input, so no parallel solve reaches the serial answer; "
            "switch its randomness off (eval mode) or choose solver serial"
        )
