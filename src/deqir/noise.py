"""All random numbers of a restoration: a function of the seed and the step, whatever the device, batch or solver."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, overload

import torch
from torch import Tensor

Shape = tuple[int, int, int]


class StepNoises(Protocol):
    """The noise of every step: a tensor (S, B, C, H, W), or anything that is indexed like one."""

    @overload
    def __getitem__(self, steps: int) -> Tensor: ...
    @overload
    def __getitem__(self, steps: slice) -> Tensor: ...
    def __getitem__(self, steps: int | slice) -> Tensor:
        """z_i (B, C, H, W) for a number, z of several steps (n, B, C, H, W) for a slice."""


@dataclass(frozen=True, eq=False)
class NoiseSection:
    """The noises of ``source`` from step ``start`` on, numbered from 0."""

    source: StepNoises
    start: int

    @overload
    def __getitem__(self, steps: int) -> Tensor: ...
    @overload
    def __getitem__(self, steps: slice) -> Tensor: ...
    def __getitem__(self, steps: int | slice) -> Tensor:
        """As in the whole, at steps that are zero or more; a slice names both its ends."""
        if isinstance(steps, int):
            return self.source[self.start + steps]
        return self.source[self.start + steps.start : self.start + steps.stop]


@dataclass(eq=False)
class SeededNoise:
    """Standard Gaussian noise for images of ``shape`` (C, H, W), one image a seed.

    It is drawn on the CPU in float32, image by image and step by step, each from a generator of its own: an image's
    noise depends on its seed and the step alone. A single step is drawn when it is asked for, so that a serial walk
    holds one at a time; a slice, or a step that is asked for again, keeps all of them for the sweeps to come. Where
    ``held`` is set, the noises drawn last stay in memory, that many, and older ones are drawn anew when asked for.
    """

    shape: Shape
    seeds: Sequence[int]
    steps: int
    device: torch.device
    dtype: torch.dtype
    held: int | None = None
    _all: Tensor | None = field(default=None, repr=False)
    _some: dict[int, Tensor] = field(default_factory=dict, repr=False)
    _asked: set[int] = field(default_factory=set, repr=False)

    @property
    def initial(self) -> Tensor:
        """x_0, (B, C, H, W); the same for every number of steps."""
        return self._draw("initial")

    @overload
    def __getitem__(self, steps: int) -> Tensor: ...
    @overload
    def __getitem__(self, steps: slice) -> Tensor: ...
    def __getitem__(self, steps: int | slice) -> Tensor:
        """z_i for a number, the stacked z for a slice."""
        if self.held is not None:
            if isinstance(steps, int):
                return self._one(steps, self.held)
            return torch.stack([self._one(step, self.held) for step in range(self.steps)[steps]])
        if isinstance(steps, int) and self._all is None and steps not in self._asked:
            self._asked.add(steps)
            return self._draw(str(steps))
        if self._all is None:
            self._all = torch.stack([self._draw(str(step)) for step in range(self.steps)])
        return self._all[steps]

    def _one(self, step: int, held: int) -> Tensor:
        """z of one step, of which ``held`` stay."""
        if step not in self._some:
            while len(self._some) >= held:
                del self._some[next(iter(self._some))]
            self._some[step] = self._draw(str(step))
        return self._some[step]

    def _draw(self, what: str) -> Tensor:
        drawn = [torch.randn(self.shape, generator=generator(seed, what)) for seed in self.seeds]
        return torch.stack(drawn).to(self.device, self.dtype)


def generator(seed: int, what: str) -> torch.Generator:
    """The random numbers of ``seed`` that are meant for ``what``, independent of those for anything else."""
    digest = hashlib.blake2b(f"deqir {seed} {what}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
