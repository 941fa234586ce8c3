"""The one loop that all fixed-point solvers share, and what it returns.

Solvers know nothing of diffusion. They solve X = F(X) for X of shape (S, B, ...), where F is causal along axis 0:
F(X)[k] depends on X[0], ..., X[k-1] only. After n sweeps the first n entries are therefore exact, whatever the start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor

from deqir.errors import OptionError, ShapeError
from deqir.precision import finest_dtype
from deqir.solvers.stopping import estimate_error

CausalMap = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``causal_map(states, prefix, stop)``: F(X) of ``states`` (S, B, ...), see ``solve``."""


class Status(str, Enum):
    """How the solve ended for one image; the text is the advice."""

    CONVERGED = "converged"
    MAX_SWEEPS = "stopped at max_sweeps before the tolerance was met; raise max_sweeps or the tolerance"
    NON_FINITE = "the chain itself gave NaN or infinite values; check the prior, the dtype and the observation"


@dataclass(frozen=True)
class SweepReport:
    """What the loop tells a progress callback after one sweep.

    ``finished`` (B,) counts the final states of each image, ``residual`` (B,) is the root mean square change of the
    last state (of the window, where there is one), ``residuals`` (S, B) that of every state: 0 where F kept it, NaN
    where F(X) overflowed. ``states`` (S, B, ...) is the current iterate, ``evaluations`` (B,) the states handed to the
    network so far.
    """

    sweep: int
    finished: Tensor
    residual: Tensor
    residuals: Tensor
    states: Tensor
    evaluations: Tensor


@dataclass(frozen=True)
class Solution:
    """A solved chain. ``states`` (S, B, ...); the rest is per image.

    ``status`` holds B entries, ``sweeps`` and ``evaluations`` (B,) int64 count sequential sweeps and states handed to
    the network, ``residuals`` (sweeps, B) is the history of the root mean square residual of the last state (of the
    window, where there is one), NaN after the image was done; ``finished`` (sweeps, B) the history of its final prefix.
    ``errors`` (B,) float64 is the estimated root mean square distance of the last state to the serial answer: 0 where
    it is exact, infinite where it is not known. ``broken`` (B,) int64 is the position of the first state that came out
    NaN or infinite, -1 where none did; the states from there on mean nothing.
    """

    states: Tensor
    status: tuple[Status, ...]
    sweeps: Tensor
    evaluations: Tensor
    residuals: Tensor
    finished: Tensor
    errors: Tensor
    broken: Tensor

    @property
    def value(self) -> Tensor:
        """The last state, (B, ...)."""
        return self.states[-1]


@dataclass(frozen=True)
class FixedPointSolver(ABC):
    """A rule that proposes the next iterate; ``max_sweeps`` None allows the S sweeps that always suffice.

    ``window`` bounds the states of an image that one sweep hands to the network (None: all): those right after its
    final prefix, over which the window slides (ParaDiGMS, arXiv 2305.16317). States that enter it keep their value of
    the start, or with ``carry``, as published, take that of the last state which was inside.
    """

    mixes: ClassVar[bool] = False
    """Whether a proposal mixes several iterates."""

    max_sweeps: int | None = None
    window: int | None = None
    carry: bool = False

    def __post_init__(self) -> None:
        if self.max_sweeps is not None and self.max_sweeps < 1:
            raise OptionError(f"max_sweeps is {self.max_sweeps}; choose at least 1")
        if self.window is not None and self.window < 1:
            raise OptionError(f"window is {self.window}; choose at least 1 state")

    @abstractmethod
    def init(self, start: Tensor) -> Any:
        """The solver's memory before the first sweep from ``start`` (S, B, ...)."""

    @abstractmethod
    def propose(self, states: Tensor, images: Tensor, memory: Any, active: Tensor) -> tuple[Tensor, Any]:
        """The next iterate and memory from ``states`` X and ``images`` F(X), both (S, B, ...).

        ``active`` (S, B) is true where a state is not final, is inside the window, and F(X) came out finite. The
        proposal is used there alone, and there where it is finite.
        """


def solve(
    solver: FixedPointSolver,
    causal_map: CausalMap,
    start: Tensor,
    tolerances: Tensor,
    progress: Callable[[SweepReport], None] | None = None,
    extrapolate: bool = True,
    horizon: Callable[[Tensor], Tensor] | None = None,
) -> Solution:
    """Solve ``X = causal_map(X, prefix, stop)`` from ``start`` (S, B, ...).

    ``causal_map`` keeps the first ``prefix[b]`` entries of image b, recomputes those before ``stop[b]``, and returns
    the rest as it likes best for a start: unchanged, as a rule. Both are (B,) int64; ``stop`` is S without a window.
    With ``extrapolate``, the solve of an image ends when the estimated error of its last entry is within the last
    tolerance, see ``estimate_error``; that is for maps that carry a change through all entries in one sweep.
    ``horizon(prefix)`` says before each sweep from which entry on (B,) it is not worth evaluating yet; the map then
    recomputes the entries beyond ``stop`` in its own way.
    ``tolerances`` (S,) also bounds the root mean square residual at which an entry, all before it being final or within
    theirs, becomes final too. Once final, an entry is never touched again; the first entry after the final prefix
    always takes F(X) unmixed, which is exact. Raises ShapeError where ``start`` and ``tolerances`` do not fit.
    """
    if start.ndim < 3 or tolerances.shape != start.shape[:1]:
        raise ShapeError(
            f"start {tuple(start.shape)} and tolerances {tuple(tolerances.shape)} do not fit; "
            "give states of shape (S, B, ...) with values behind the two axes, and S tolerances"
        )
    loop = _Loop(start, tolerances, solver.window or len(start), solver.mixes, extrapolate, horizon)
    memory = solver.init(start)
    limit = min(len(start), solver.max_sweeps or len(start))
    while loop.sweep < limit and not loop.done:
        stop = loop.stop
        images = loop.advance(causal_map(loop.states, loop.prefix, stop), stop)
        if loop.done:
            loop.states = images
        else:
            memory = loop.move(solver, images, memory, stop)
        if progress is not None:
            progress(loop.report())
    return loop.solution()


class _Loop:
    """The bookkeeping of one solve: iterate, final prefix, counts and histories."""

    def __init__(
        self,
        start: Tensor,
        tolerances: Tensor,
        window: int,
        mixed: bool,
        extrapolate: bool,
        horizon: Callable[[Tensor], Tensor] | None,
    ):
        self.states, self.window, self.mixed = start, window, mixed
        self.extrapolate, self.horizon = extrapolate, horizon
        self.length, self.batch = start.shape[:2]
        exact = finest_dtype(start.device)
        self.tolerances = tolerances.to(start.device, exact).view(-1, 1)
        self.prefix = torch.zeros(self.batch, dtype=torch.long, device=start.device)
        self.broken = torch.full_like(self.prefix, -1)
        self.finite = torch.ones(start.shape[:2], dtype=torch.bool, device=start.device)
        self.sweeps, self.evaluations = torch.zeros_like(self.prefix), torch.zeros_like(self.prefix)
        self.sweep = 0
        self.errors = torch.full_like(self.prefix, torch.inf, dtype=exact)
        self.norms = torch.zeros(start.shape[:2], dtype=exact, device=start.device)
        self.residuals: list[Tensor] = []
        self.lasts: list[Tensor] = []
        self.finished: list[Tensor] = []

    @property
    def failed(self) -> Tensor:
        """The images whose first open state, which is exact, is not finite, (B,)."""
        return self.broken >= 0

    @property
    def done(self) -> bool:
        return bool((self.prefix >= self.length).all())

    @property
    def stop(self) -> Tensor:
        """The end of every image's window, (B,)."""
        stop = (self.prefix + self.window).clamp(max=self.length)
        if self.horizon is None:
            return stop
        next_one = (self.prefix + 1).clamp(max=self.length)
        return torch.maximum(torch.minimum(stop, self.horizon(self.prefix).to(stop)), next_one)

    @property
    def index(self) -> Tensor:
        """The number of every state, (S, 1)."""
        return torch.arange(self.length, device=self.prefix.device).view(-1, 1)

    def between(self, first: Tensor, stop: Tensor) -> Tensor:
        """The states ``first[b]`` .. ``stop[b]`` - 1 of every image, (S, B)."""
        return (self.index >= first) & (self.index < stop)

    def per_value(self, flags: Tensor) -> Tensor:
        """Flags (S, B) in a shape that broadcasts over the states."""
        return flags.view(self.length, self.batch, *[1] * (self.states.ndim - 2))

    def move(self, solver: FixedPointSolver, images: Tensor, memory: Any, stop: Tensor) -> Any:
        """Take what the solver proposes where that may be used, F(X) elsewhere; returns the solver's memory."""
        active = self.between(self.prefix, stop) & self.finite
        proposed, memory = solver.propose(self.states, images, memory, active)
        self.states = torch.where(self.per_value(active) & proposed.isfinite(), proposed, images)
        if solver.carry:
            self.carry(stop)
        return memory

    def carry(self, stop: Tensor) -> None:
        """States that enter the window, from ``stop`` on, take the value of the last one inside."""
        entering = self.between(stop, torch.where(self.prefix < self.length, self.stop, stop))
        last = self.states[stop - 1, torch.arange(self.batch, device=stop.device)]
        self.states = torch.where(self.per_value(entering), last, self.states)

    def advance(self, images: Tensor, stop: Tensor) -> Tensor:
        """Take F(X) in: count, measure, extend the final prefix. Returns F(X) with unusable values replaced by X's."""
        active = self.prefix < self.length
        self.sweep += 1
        self.sweeps += active.long()
        self.evaluations += stop - self.prefix
        finite = images.isfinite()
        images = torch.where(finite, images, self.states)
        self.finite = finite.flatten(2).all(2)
        exact_is_finite = self._at_prefix(self.finite)
        moved = (images - self.states).flatten(2)
        norms = torch.linalg.vector_norm(moved, dim=2, dtype=self.norms.dtype) / moved.shape[2] ** 0.5
        self.norms = torch.where(self.finite, norms, torch.nan)
        within = (norms <= self.tolerances) & self.finite & (self.index < stop)
        self.broken = torch.where(active & ~exact_is_finite, self.prefix, self.broken)
        self.prefix = torch.where(self.failed, self.length, self._extended(within, active))
        last = norms.gather(0, stop.view(1, -1) - 1)[0]
        self.residuals.append(torch.where(active, last, torch.nan))
        self._judge(active, stop == self.length, norms)
        self.finished.append(self.prefix.cpu())
        return images

    def _judge(self, active: Tensor, reached: Tensor, norms: Tensor) -> None:
        """Estimate the error of the last state; end the solve of images where it is within its tolerance."""
        follows = reached | (self.horizon is not None)
        self.lasts.append(torch.where(follows & self.extrapolate, norms[-1], torch.inf))
        estimated = estimate_error(self.lasts, norms.amax(0), self.mixed)
        complete = self.prefix >= self.length
        known = torch.where(complete & ~estimated.isfinite(), norms[-1], estimated)
        known = torch.where(self.sweeps == self.length, 0.0, known)
        self.errors = torch.where(active & ~self.failed, known, self.errors)
        accepted = active & reached & ~self.failed & (known <= self.tolerances[-1])
        self.prefix = torch.where(accepted, self.length, self.prefix)

    def _at_prefix(self, flags: Tensor) -> Tensor:
        position = self.prefix.clamp(max=self.length - 1)
        return flags.gather(0, position.view(1, -1))[0]

    def _extended(self, within: Tensor, active: Tensor) -> Tensor:
        """The new prefix: the exact entry is final, and, if it is within tolerance, so are those after it that all are.

        An entry after one that has moved further was computed from what no longer holds, however little it moved.
        """
        run = (within | (self.index < self.prefix)).long().cumprod(0).sum(0)
        return torch.where(active, torch.maximum(run, self.prefix + 1), self.prefix)

    def report(self) -> SweepReport:
        residual, residuals = self.residuals[-1].cpu(), self.norms.cpu()
        return SweepReport(self.sweep, self.prefix.cpu(), residual, residuals, self.states, self.evaluations.cpu())

    def solution(self) -> Solution:
        unfinished = self.prefix < self.length
        flags = zip(self.failed.tolist(), unfinished.tolist(), strict=True)
        status = tuple(
            Status.NON_FINITE if failed else Status.MAX_SWEEPS if open_ else Status.CONVERGED for failed, open_ in flags
        )
        return Solution(
            self.states,
            status,
            self.sweeps.cpu(),
            self.evaluations.cpu(),
            torch.stack(self.residuals).cpu(),
            torch.stack(self.finished),
            self.errors.cpu(),
            self.broken.cpu(),
        )
