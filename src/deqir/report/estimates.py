"""What a report asks the network after the run: the time of one call, and the clean images it sees in the states."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from deqir.chain import SamplingChain


@torch.no_grad()
def seconds_per_call(chain: SamplingChain) -> float:
    """The time of one network call on one state, all its tiles where it has some, in seconds: the better of two."""
    state, timestep = chain.initial_noise[:1], chain.step.levels.timesteps[:1].to(chain.initial_noise.device)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        float(chain.predict(state, timestep).sum())  # reading a number waits for the device
        seconds.append(time.perf_counter() - started)
    return min(seconds)


@torch.no_grad()
def clean_estimates(chain: SamplingChain, states: Mapping[int, Tensor]) -> Tensor:
    """The clean image that the network sees in each of the states (1, C, H, W), by their numbers 1 .. S; (K, C, H, W).

    ``(x_k - sqrt(1 - a_k) eps(x_k, t_k)) / sqrt(a_k)``, in [-1, 1] like the states; state S is clean itself.
    """
    levels, like = chain.step.levels, chain.initial_noise
    x = torch.cat(list(states.values())).to(like)
    noisy = torch.tensor([number for number in states if number < len(chain)], dtype=torch.long)
    if not len(noisy):
        return x
    a = levels.alphas[noisy].to(like).view(-1, 1, 1, 1)
    eps = chain.predict(x[: len(noisy)], levels.timesteps[noisy].to(like.device))
    return torch.cat([(x[: len(noisy)] - (1 - a).sqrt() * eps) / a.sqrt(), x[len(noisy) :]])
