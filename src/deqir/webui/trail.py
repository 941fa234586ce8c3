"""How a serial chain goes: how far each step moved the clean image, and how long the rest will take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from torch import Tensor

from deqir.precision import GREY_LEVELS_PER_UNIT
from deqir.results import Progress


@dataclass(eq=False)
class Trail:
    """Listens to a serial chain; a parallel solve, which tells of its states, leaves it empty.

    ``changes``: the distance of each clean image to the one before, root mean square in grey levels, from the second
    step on.
    """

    changes: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    total: int = 0
    _before: Tensor | None = field(default=None, repr=False)

    def __call__(self, progress: Progress) -> None:
        """Take one report in."""
        if progress.residuals is not None:
            return
        self.total = progress.total
        self.times.append(time.perf_counter())
        image = progress.image[0].detach().float().cpu()
        if self._before is not None:
            self.changes.append(2 * GREY_LEVELS_PER_UNIT * float((image - self._before).square().mean().sqrt()))
        self._before = image

    @property
    def seconds_left(self) -> float | None:
        """The time that the steps to come take at the pace so far; None before there is one."""
        done = len(self.times)
        if done < 2 or done >= self.total:
            return None
        return (self.times[-1] - self.times[0]) / (done - 1) * (self.total - done)
