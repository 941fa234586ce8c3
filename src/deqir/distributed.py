"""Several processes on torch.distributed: who this one is, and one image's timesteps shared among all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from math import ceil

import torch
from torch import Tensor
from torch import distributed as dist

from deqir.batching import Batcher
from deqir.errors import OptionError, RankError
from deqir.priors import Denoiser
from deqir.schedule import NoiseSchedule
from deqir.tiling import DEFAULT_TILE

PATIENCE = timedelta(days=30)
"""How long processes wait for each other: shares of files may end hours apart, and a lost one is noticed at once."""

_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
"""The name in newer versions of torch, which warn of the older one."""

RESUME = "the job ends; start the same command again and it goes on where it was"


@dataclass(frozen=True)
class Rank:
    """This process: number ``index`` of ``count``, number ``local`` on its machine."""

    index: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def launched(cls) -> Rank:
        """The rank that torchrun or accelerate launch put into the environment; the only one without them."""
        index, count, local = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return cls(index, max(1, count), local)

    def device(self, asked: str | None) -> str | None:
        """The device for this process: a GPU of its own where CUDA is there and ``asked`` names no other device."""
        if self.count == 1 or asked not in (None, "cuda") or not torch.cuda.is_available():
            return asked
        return f"cuda:{self.local % torch.cuda.device_count()}"


@contextmanager
def process_group(rank: Rank, device: str | None) -> Iterator[None]:
    """Join the other processes, NCCL between GPUs and gloo between CPUs; nothing to do for a single process.

    Raises RankError where they cannot be reached.
    """
    if rank.count == 1:
        yield
        return
    on_cuda = device is not None and device.startswith("cuda")
    if on_cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RankError(
            f"process {rank.index} cannot reach the others ({_first_line(error)}); start all again"
        ) from None
    try:
        yield
    finally:
        dist.destroy_process_group()


def total(rank: Rank, counts: list[int]) -> list[int]:
    """The sums of ``counts`` over all processes, for which this waits. Raises RankError where one is lost."""
    if rank.count == 1:
        return counts
    summed = torch.tensor(counts)
    try:
        dist.all_reduce(summed)
    except RuntimeError as error:
        raise _lost(rank.index, error) from None
    return [int(value) for value in summed]


@dataclass(frozen=True, eq=False)
class ShardedDenoiser:
    """A denoiser that every process of a group calls with the same N states and that computes a share in each.

    Process r of R evaluates the r-th run of ceil(N / R) states with ``denoiser``, at most ``max_batch`` (None: by size
    and memory) at a time; one all-gather then gives all of them all N predictions. Everything around it, the chain and
    the solver, runs in every process alike and on equal numbers, so all take the same decisions; that needs processors
    of one kind, the same versions and the same order of calls. A call holds all states of a sweep where the chain's
    ``max_batch`` lets it. ``group`` None is the default group. Gradients do not pass.
    """

    denoiser: Denoiser
    max_batch: int | None = None
    group: dist.ProcessGroup | None = None

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule of the denoiser."""
        return self.denoiser.schedule

    @property
    def channels(self) -> int:
        """C, the image channels."""
        return self.denoiser.channels

    @property
    def name(self) -> str:
        """The denoiser's own name."""
        return self.denoiser.name

    @property
    def tile_size(self) -> int:
        """The side of the denoiser's tiles in pixels."""
        return int(getattr(self.denoiser, "tile_size", DEFAULT_TILE))

    @cached_property
    def batcher(self) -> Batcher:
        """The denoiser, called with a limited number of states."""
        return Batcher(self.denoiser, self.max_batch)

    def to(self, device: torch.device, dtype: torch.dtype) -> ShardedDenoiser:
        """This denoiser on ``device``, computing in ``dtype``."""
        return replace(self, denoiser=self.denoiser.to(device, dtype))

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The predicted noise (N, C, H, W) in ``x`` of that shape at ``timesteps`` (N,).

        Raises OptionError where a gradient is asked for, RankError where this process fails or loses another one.
        """
        if torch.is_grad_enabled() and x.requires_grad:
            raise OptionError("gradients do not pass through a ShardedDenoiser; choose its denoiser without sharding")
        rank, ranks = dist.get_rank(self.group), dist.get_world_size(self.group)
        share = ceil(len(x) / ranks)
        mine = slice(rank * share, (rank + 1) * share)
        part = x.new_zeros(share, *x.shape[1:])
        try:
            predicted = self.batcher(x[mine], timesteps[mine])
        except Exception as error:  # the others wait for this part, so no error may stay within one process
            raise RankError(f"process {rank} failed ({_first_line(error)}); {RESUME}") from error
        part[: len(predicted)] = predicted
        whole = x.new_empty(ranks * share, *x.shape[1:])
        try:
            _all_gather(whole, part, group=self.group)
        except RuntimeError as error:
            raise _lost(rank, error) from None
        return whole[: len(x)]


def _lost(rank: int, error: Exception) -> RankError:
    return RankError(f"process {rank} lost another one ({_first_line(error)}); {RESUME}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
