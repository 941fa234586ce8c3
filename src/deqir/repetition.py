"""Whether a network answers the same twice, and to an image in a batch; a fixed point of all timesteps needs both."""

from __future__ import annotations

import torch
from torch import Tensor

from deqir.chain import SamplingChain
from deqir.errors import NondeterminismError

LARGEST_DIFFERENCE = 2e-3
"""Relative difference, root mean square, that counts as rounding: parallel sums on a GPU, half types among them."""

LARGEST_DIFFERENCE_IN_BATCH = 2e-2
"""The same between an image alone and in a batch, for which a GPU may choose another kernel."""

LATE_SCALE = 0.5
"""The late state is noise as large as a clean image, not as large as initial noise, so that statistics over the batch
change."""

RANDOM = "answers differently to the same input"
MIXING = "mixes the images of a batch, as it answers differently to an image alone"


@torch.no_grad()
def unrepeatable(chain: SamplingChain) -> str:
    """What keeps the network of ``chain`` from giving one answer to one state; empty where two states show nothing.

    The states are the first image's initial noise at the first timestep, and half of it at the last. Five evaluations
    of the network, where the chain needs S an image at least: the first state twice, both together, the second alone.
    """
    states, timesteps = _probes(chain)

    def alone(which: int) -> Tensor:
        return chain.predict(states[which : which + 1], timesteps[which : which + 1])

    early = alone(0)
    if _apart(early, alone(0)) > LARGEST_DIFFERENCE:
        return RANDOM
    together, late = chain.predict(states, timesteps), alone(1)
    if not max(_apart(early, together[:1]), _apart(late, together[1:])) > LARGEST_DIFFERENCE_IN_BATCH:
        return ""
    return RANDOM if _apart(late, alone(1)) > LARGEST_DIFFERENCE else MIXING


def require_repeatable(chain: SamplingChain, name: str) -> None:
    """Raise NondeterminismError unless the network of ``chain``, the prior called ``name``, is repeatable."""
    fault = unrepeatable(chain)
    if fault:
        remedy = "switch its randomness off" if fault == RANDOM else "switch its batch statistics off"
        raise NondeterminismError(
            f"the prior {name} {fault}, so no parallel solve reaches the serial answer; "
            f"{remedy} (eval mode) or choose solver serial"
        )


def _probes(chain: SamplingChain) -> tuple[Tensor, Tensor]:
    """An early and a late state (2, C, H, W) and their timesteps (2,)."""
    noise = chain.initial_noise[:1]
    return torch.cat([noise, LATE_SCALE * noise]), chain.step.levels.timesteps[[0, -1]].to(noise.device)


def _apart(one: Tensor, other: Tensor) -> float:
    """How far ``other`` lies from ``one``, relative, root mean square; 0 where either is not finite."""
    difference = float((one - other).norm() / one.norm().clamp(min=1e-12))
    return difference if difference < float("inf") else 0.0
