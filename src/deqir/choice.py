"""``solver="auto"``: measure the network on this device, then choose serial or parallel, and a window."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from dataclasses import dataclass

import torch

from deqir.batching import MEMORY_SHARE
from deqir.chain import SamplingChain

CALIBRATION_SHARE = 0.05
"""The share of the serial chain's time that measuring may cost, the first three calls apart."""

GROWTH = 4
"""Every batch that is timed holds this many times the timesteps of the one before."""

SMALLEST_WINDOW = 4
"""A window of two timesteps finishes one a sweep, which is the serial chain."""

STATES_HELD = 21
"""Tensors of the size of all states held that a preconditioned solve has at its peak (measured, docs/solvers.md)."""


@dataclass(frozen=True)
class SolverChoice:
    """What was chosen, ``"serial"`` or ``"preconditioned"``, its window (None: all timesteps), and the measured reason
    in one sentence.
    """

    solver: str
    reason: str
    window: int | None = None


@torch.no_grad()
def choose_solver(chain: SamplingChain, window: int | None = None, bounded: bool = False) -> SolverChoice:
    """Time the network on one timestep and on a few batches of them; choose what should end sooner.

    ``window``: the only one to consider (None: all of 4, 8, 16, ... timesteps, and no window). ``bounded``: whether a
    window bounds the states held too. The batches grow by ``GROWTH`` until another would bring the time of measuring
    beyond ``CALIBRATION_SHARE`` of the serial chain, a batch costs as much as its timesteps one by one, or all fit.
    Where the states of a parallel solve would not fit into the free memory, nothing is measured and the choice is
    serial.
    """
    free = free_bytes(chain.initial_noise.device)
    windows = [w for w in _windows(len(chain), window) if _fits(chain, w if bounded else None, free)]
    if not windows:
        least = parallel_bytes(chain, _windows(len(chain), window)[0] if bounded else None)
        reason = f"a parallel solve would hold {least / 1e9:.1f} GB of states, and {(free or 0) / 1e9:.1f} GB are free"
        return SolverChoice("serial", reason)
    most = max(windows) * chain.image_count
    if len(chain) == 1 or chain.batcher.limit(chain.initial_noise, most) <= chain.image_count:
        return SolverChoice("serial", "one batch holds no more than one timestep, so there is nothing to parallelise")
    timings = _calibrate(chain, most)
    serial = len(chain) * timings.seconds[0]
    expected = {w: _parallel_seconds(chain, w, timings) for w in windows}
    best = min(windows, key=lambda w: (expected[w], -w))
    chosen = best if best < len(chain) else None
    device = chain.initial_noise.device.type
    at = "" if chosen is None else f" in a window of {chosen} timesteps"
    reason = f"expected {serial:.1f} s serial and {expected[best]:.1f} s parallel{at} on {device}"
    if expected[best] >= serial:
        return SolverChoice("serial", reason)
    return SolverChoice("preconditioned", reason, chosen)


def expected_sweeps(steps: int, window: int) -> float:
    """Sweeps that a preconditioned solve of ``steps`` timesteps takes in a ``window``, with none ``window`` = steps.

    Fitted to 104 solves of 25 to 250 steps in windows of 2 and up (docs/solvers.md): so many timesteps become final in
    a sweep while the window slides, and the last window is solved in so many.
    """
    window = min(window, steps)
    finished = max(1.0, 0.56 * math.pow(window, 0.77))
    return (steps - window) / finished + min(window, 1.1 + 1.25 * math.log2(window))


def expected_evaluations(steps: int, window: int) -> float:
    """Evaluations of the network that such a solve takes, fitted to the same."""
    return steps * (1 + 0.66 * math.log2(min(window, steps)))


@dataclass(frozen=True)
class Timings:
    """The time of one network call, ``seconds``, on so many ``images``, ascending; ``limit`` is the largest call."""

    images: tuple[int, ...]
    seconds: tuple[float, ...]
    limit: int

    def at(self, images: float) -> float:
        """The seconds for ``images``: on a straight line between, and beyond, the two measured next to it.

        More than ``limit`` take several calls.
        """
        if images > self.limit:
            return images / self.limit * self.at(self.limit)
        if len(self.images) == 1:
            return self.seconds[0] * max(1.0, images / self.images[0])
        above = min(max(1, bisect_left(self.images, images)), len(self.images) - 1)
        (low, high), (short, long) = self.images[above - 1 : above + 1], self.seconds[above - 1 : above + 1]
        slope = max(0.0, long - short) / (high - low)
        return long + slope * (max(images, self.images[0]) - high)


def _windows(steps: int, window: int | None) -> list[int]:
    """The windows to consider, ascending; ``steps`` stands for none."""
    if window is not None:
        return [min(window, steps)]
    powers = (SMALLEST_WINDOW * 2**k for k in range(max(0, math.ceil(math.log2(steps / SMALLEST_WINDOW)))))
    return [*powers, steps]


def _fits(chain: SamplingChain, window: int | None, free: int | None) -> bool:
    return free is None or parallel_bytes(chain, window) <= MEMORY_SHARE * free


def _parallel_seconds(chain: SamplingChain, window: int, timings: Timings) -> float:
    sweeps = expected_sweeps(len(chain), window)
    each = chain.image_count * min(window, expected_evaluations(len(chain), window) / sweeps)
    return sweeps * timings.at(each)


def _calibrate(chain: SamplingChain, most: int) -> Timings:
    """Time one timestep, then more and more of them, up to ``most`` images in a call.

    On a CPU the first batch is one of two timesteps, enough to see whether batching helps there at all.
    """
    one = chain.image_count
    single = min(_seconds(chain, one) for _ in range(2))
    timed, left = {one: single}, CALIBRATION_SHARE * len(chain) * single - 2 * single
    wanted = one * (2 if chain.initial_noise.device.type == "cpu" else GROWTH)
    while True:
        before = max(timed)
        batch = min(wanted, most, chain.batcher.limit(chain.initial_noise, min(wanted, most)))
        if batch <= before:
            break
        held, seconds = _held_seconds(chain, batch)
        timed[held] = seconds
        left -= seconds
        wanted *= GROWTH
        following = seconds + max(0.0, seconds - timed[before]) / max(1, held - before) * (wanted - held)
        if held < batch or seconds > 0.9 * timed[before] * held / before or following > left:
            break
    images, seconds_each = zip(*sorted(timed.items()), strict=True)
    return Timings(images, seconds_each, chain.batcher.limit(chain.initial_noise))


def _held_seconds(chain: SamplingChain, batch: int) -> tuple[int, float]:
    """The images of ``batch`` that memory holds in one call, and the time of a call on so many."""
    seconds = _seconds(chain, batch)
    held = chain.batcher.limit(chain.initial_noise)
    if held >= batch:
        return batch, seconds
    held = max(chain.image_count, held)
    return held, _seconds(chain, held)  # the first time is no measure: memory ran out


def parallel_bytes(chain: SamplingChain, window: int | None = None) -> int:
    """The bytes that a preconditioned solve of ``chain`` holds at its peak, beside the network."""
    noise = chain.initial_noise
    held = len(chain) if window is None else min(window, len(chain))
    return STATES_HELD * held * noise.numel() * noise.element_size()


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
