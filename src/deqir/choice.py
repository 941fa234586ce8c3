"""``solver="auto"``: measure the network on this device, then choose serial or parallel."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import ceil

import torch

from deqir.batching import MEMORY_SHARE
from deqir.chain import SamplingChain

SWEEPS_AT_MOST = 12
"""Sweeps that the preconditioned solver is expected to need, however many steps (see benchmarks/solvers.py)."""

CPU_PROBE = 4
"""Timesteps in the batch that is timed on a CPU."""

FINISHING = 0.6
"""Share of the states that a sweep hands to the network on average, finished ones being left out."""


STATES_HELD = 21
"""Tensors of the size of all states that a preconditioned solve holds at its peak (measured, see docs/solvers.md)."""


@dataclass(frozen=True)
class SolverChoice:
    """What was chosen, ``"serial"`` or ``"preconditioned"``, and the measured reason in one sentence."""

    solver: str
    reason: str


@torch.no_grad()
def choose_solver(chain: SamplingChain) -> SolverChoice:
    """Time one network call of one state and one of a full batch; choose what should end sooner.

    Serial takes S calls. A parallel solve is taken to need ``SWEEPS_AT_MOST`` sweeps (S where that is less), each of
    which hands the network ``FINISHING`` of the S states on average. On a CPU the batch is one of four, enough to see
    whether batching helps there at all; the measurement then costs six evaluations of the network. Where
    the states of a parallel solve would not fit into the free memory, nothing is measured and the choice is serial.
    """
    steps, images = len(chain), chain.image_count
    needed, free = parallel_bytes(chain), free_bytes(chain.initial_noise.device)
    if free is not None and needed > MEMORY_SHARE * free:
        reason = f"a parallel solve would hold {needed / 1e9:.1f} GB of states, and {free / 1e9:.1f} GB are free"
        return SolverChoice("serial", reason)
    limit = chain.batcher.limit(chain.initial_noise, steps * images)
    probe = CPU_PROBE * images if chain.initial_noise.device.type == "cpu" else limit
    batch = max(1, min(limit, steps * images, probe))
    if steps == 1 or batch == images:
        return SolverChoice("serial", "one batch holds no more than one timestep, so there is nothing to parallelise")
    single, many = min(_seconds(chain, images) for _ in range(2)), _seconds(chain, batch)
    held = chain.batcher.limit(chain.initial_noise)
    if held < batch:  # memory ran out, so that time is no measure
        batch, many = held, _seconds(chain, held)
    serial = steps * single
    sweeps = min(SWEEPS_AT_MOST, steps)
    parallel = sweeps * ceil(FINISHING * steps * images / batch) * many
    faster = "preconditioned" if parallel < serial else "serial"
    reason = f"expected {serial:.1f} s serial and {parallel:.1f} s parallel on {chain.initial_noise.device.type}"
    return SolverChoice(faster, reason)


def parallel_bytes(chain: SamplingChain) -> int:
    """The bytes that a preconditioned solve of ``chain`` holds at its peak, beside the network."""
    noise = chain.initial_noise
    return STATES_HELD * len(chain) * noise.numel() * noise.element_size()


def free_bytes(device: torch.device) -> int | None:
    """The bytes that ``device`` has free, the machine for a CPU; None where it does not tell."""
    if device.type == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def _seconds(chain: SamplingChain, batch: int) -> float:
    """The time of one network call on ``batch`` states, in seconds."""
    noise = chain.initial_noise[torch.arange(batch) % chain.image_count]
    timesteps = chain.step.levels.timesteps.to(noise.device)[torch.arange(batch) % len(chain)]
    started = time.perf_counter()
    float(chain.predict(noise, timesteps).sum())  # reading a number waits for the device
    return time.perf_counter() - started
