"""Noise schedules and the choice of timesteps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from deqir.errors import OptionError

SpacingName = Literal["cubic", "quadratic", "leading", "trailing", "linspace", "uniform"]
Spacing = SpacingName | Sequence[int]
ScheduleName = Literal["linear", "scaled_linear", "cosine", "sigmoid"]


@dataclass(frozen=True, eq=False)
class NoiseLevels:
    """The timesteps of one chain and their signal levels.

    ``timesteps`` (S,) int64, descending; ``alphas`` (S + 1,) float64, the cumulative products ``a_i`` of the
    timesteps followed by ``a_S = 1`` for the restored image. In a chain that travels in time both go back at some
    states: step i then denoises to the level ``descents[i]`` (S,) and noise takes it back to ``alphas[i + 1]``.
    ``descents`` is None where no step does; S always counts network calls.
    """

    timesteps: Tensor
    alphas: Tensor
    descents: Tensor | None = None

    def __len__(self) -> int:
        return len(self.timesteps)

    def step(self, i: int) -> tuple[float, float]:
        """The level ``a_i`` of state i and the one that step i denoises to."""
        below = self.alphas[i + 1] if self.descents is None else self.descents[i]
        return float(self.alphas[i]), float(below)

    def with_travel(self, length: int, repeat: int) -> NoiseLevels:
        """These levels with time travel (RePaint, arXiv 2201.09865; DDNM, arXiv 2212.00490, sec. 3.3).

        Every ``length`` steps, counted from the cleanest timestep, the chain goes back by ``length`` steps, so that it
        walks each of these stretches ``repeat`` times; the first steps, fewer than ``length``, and the last one are
        walked once. With ``repeat`` 1 nothing changes. Raises OptionError where one of the two is below 1 or no
        stretch fits.
        """
        if length < 1 or repeat < 1:
            raise OptionError(f"travel_length is {length} and travel_repeat {repeat}; choose at least 1 for both")
        if repeat == 1:
            return self
        if length >= len(self):
            raise OptionError(
                f"travel_length is {length}, but the chain has {len(self)} steps; choose a smaller travel_length"
            )
        walk = torch.tensor(_walk_with_travel(len(self), length, repeat))
        alphas = torch.cat([self.alphas[walk], self.alphas[-1:]])
        return NoiseLevels(self.timesteps[walk], alphas, self.alphas[walk + 1])

    def section(self, start: int, stop: int) -> NoiseLevels:
        """The levels of the steps from ``start`` to before ``stop``, as a chain of their own."""
        descents = None if self.descents is None else self.descents[start:stop]
        return NoiseLevels(self.timesteps[start:stop], self.alphas[start : stop + 1], descents)

    @property
    def noise_to_signal(self) -> Tensor:
        """``sqrt((1 - a_i) / a_i)``, (S + 1,): the noise level in units of the clean image."""
        return ((1 - self.alphas) / self.alphas).clamp(min=0).sqrt()


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The forward process of a diffusion model: ``x_t = sqrt(abar_t) x + sqrt(1 - abar_t) noise``.

    ``alphas_cumprod`` (T,) float64 holds ``abar_t`` for t = 0 .. T-1, strictly inside (0, 1) and decreasing.
    """

    alphas_cumprod: Tensor

    def __post_init__(self) -> None:
        alphas = self.alphas_cumprod
        inside = alphas.ndim == 1 and len(alphas) > 0 and bool(((alphas > 0) & (alphas < 1)).all())
        if not inside or bool((alphas.diff() >= 0).any()):
            raise OptionError(
                "alphas_cumprod must be one row of decreasing values strictly between 0 and 1; "
                "check the scheduler configuration of the prior"
            )

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def at(self, timesteps: Tensor, like: Tensor) -> Tensor:
        """``abar`` of ``timesteps`` (N,), (N, 1, 1, 1) in the dtype and on the device of ``like``, as they are."""
        return self.alphas_cumprod.to(like.dtype).to(like.device)[timesteps].view(-1, 1, 1, 1)

    @classmethod
    def from_betas(cls, betas: Tensor) -> NoiseSchedule:
        """The schedule of per-step variances ``betas`` (T,), computed in float64 (DDPM, arXiv 2006.11239)."""
        return cls(torch.cumprod(1 - betas.double(), dim=0))

    @classmethod
    def linear(cls, length: int = 1000, start: float = 1e-4, end: float = 0.02) -> NoiseSchedule:
        """DDPM's linear schedule of ``length`` steps."""
        return cls.from_betas(torch.linspace(start, end, length, dtype=torch.float64))

    @classmethod
    def scaled_linear(cls, length: int = 1000, start: float = 1e-4, end: float = 0.02) -> NoiseSchedule:
        """Betas whose square roots are evenly spaced, as diffusers' "scaled_linear" (latent diffusion)."""
        return cls.from_betas(torch.linspace(start**0.5, end**0.5, length, dtype=torch.float64).square())

    @classmethod
    def cosine(cls, length: int = 1000) -> NoiseSchedule:
        """The cosine schedule with betas of at most 0.999 (arXiv 2102.09672, eq. 17); "squaredcos_cap_v2"."""
        angles = (torch.arange(length + 1, dtype=torch.float64) / length + 0.008) / 1.008 * math.pi / 2
        signal = angles.cos().square()
        return cls.from_betas((1 - signal[1:] / signal[:-1]).clamp(max=0.999))

    @classmethod
    def sigmoid(cls, length: int = 1000, start: float = 1e-4, end: float = 0.02) -> NoiseSchedule:
        """Betas along a sigmoid over [-6, 6], as diffusers' "sigmoid" (GeoDiff, arXiv 2203.02923)."""
        return cls.from_betas(torch.linspace(-6, 6, length, dtype=torch.float64).sigmoid() * (end - start) + start)

    @classmethod
    def named(cls, name: str, length: int = 1000) -> NoiseSchedule:
        """The schedule called linear, scaled_linear, cosine or sigmoid, with its published limits.

        Raises OptionError where the name is another or ``length`` is below 1.
        """
        if name not in get_args(ScheduleName):
            raise OptionError(f"schedule is {name!r}; choose one of {', '.join(get_args(ScheduleName))}")
        if length < 1:
            raise OptionError(f"the schedule has {length} timesteps; choose at least 1")
        makers = {
            "linear": cls.linear,
            "scaled_linear": cls.scaled_linear,
            "cosine": cls.cosine,
            "sigmoid": cls.sigmoid,
        }
        return makers[name](length)

    def levels(self, steps: int, spacing: Spacing = "cubic") -> NoiseLevels:
        """Choose ``steps`` of the T timesteps, from noisy to clean; or take the timesteps that ``spacing`` lists.

        A list of timesteps in 0 .. T-1, descending, is used as it is, and ``steps`` is not. ``linspace`` and
        ``uniform`` (the same) spread them over 0 .. T-1; ``quadratic`` (DDIM, arXiv 2010.02502, app. D.2) and
        ``cubic`` raise that spread to a power, so that more of them lie at low noise; ``leading`` takes every
        (T // steps)-th from 0 (DDNM), ``trailing`` the same from T - 1 downward.

        Raises OptionError where ``steps`` is outside 1..T, the spacing is unknown, or the list does not descend
        inside 0 .. T-1.
        """
        total = len(self)
        if not isinstance(spacing, str):
            return self._at(_listed(total, spacing))
        if not 1 <= steps <= total:
            raise OptionError(f"steps is {steps}; choose a number from 1 to {total}, the timesteps of this prior")
        if spacing not in get_args(SpacingName):
            names = ", ".join(get_args(SpacingName))
            raise OptionError(f"spacing is {spacing!r}; choose one of {names}, or give a list of timesteps")
        return self._at(_SPACINGS[spacing](total, steps))

    def _at(self, chosen: Tensor) -> NoiseLevels:
        alphas = torch.cat([self.alphas_cumprod[chosen], self.alphas_cumprod.new_ones(1)])
        return NoiseLevels(chosen, alphas)


def _listed(total: int, timesteps: Sequence[int]) -> Tensor:
    chosen = torch.tensor([int(timestep) for timestep in timesteps], dtype=torch.int64)
    if not len(chosen) or bool((chosen.diff() >= 0).any()) or int(chosen[0]) >= total or int(chosen[-1]) < 0:
        raise OptionError(
            f"the timesteps {list(timesteps)} do not descend inside {total - 1} .. 0; "
            "list at least one, noisy first, each once"
        )
    return chosen


def _walk_with_travel(steps: int, length: int, repeat: int) -> list[int]:
    """The positions 0 (noisiest) .. steps - 1 from which the chain denoises by one step, in the order of its walk."""
    returns = {steps - 1 - ahead: repeat - 1 for ahead in range(0, steps - length, length)}
    position, walk = 0, []
    while position < steps:
        walk.append(position)
        position += 1
        if returns.get(position, 0) > 0:
            returns[position] -= 1
            position -= length
    return walk


def _leading(total: int, steps: int) -> Tensor:
    return torch.arange(steps - 1, -1, -1) * (total // steps)


def _trailing(total: int, steps: int) -> Tensor:
    return (total - torch.arange(steps, dtype=torch.float64) * (total / steps)).round().long() - 1


def _linspace(total: int, steps: int) -> Tensor:
    return torch.linspace(total - 1, 0 if steps > 1 else total - 1, steps, dtype=torch.float64).round().long()


def _power(total: int, steps: int, exponent: float) -> Tensor:
    """Powers of an even spacing from 0 to T-1, spread out where rounding would repeat a timestep."""
    spread = torch.linspace(0 if steps > 1 else 1, 1, steps, dtype=torch.float64)
    powers = ((total - 1) * spread**exponent).round().long()
    index = torch.arange(steps)
    ascending = torch.cummax(powers - index, dim=0).values + index
    return torch.minimum(ascending, total - steps + index).flip(0)


_SPACINGS: dict[str, Callable[[int, int], Tensor]] = {
    "cubic": partial(_power, exponent=3.0),
    "quadratic": partial(_power, exponent=2.0),
    "leading": _leading,
    "trailing": _trailing,
    "linspace": _linspace,
    "uniform": _linspace,
}
