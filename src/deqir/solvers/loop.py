"""The one loop that all fixed-point solvers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deqir.errors import ShapeError
from deqir.precision import finest_dtype
from deqir.solvers.base import FixedPointSolver, Solution, Status, SweepReport
from deqir.solvers.stopping import estimate_error

CausalMap = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``causal_map(states, prefix, stop)``: F(X) of ``states`` (S, B, ...), see ``solve``."""

Slide = Callable[[Tensor, int], Tensor]
"""``slide(states, count)``: what is held once the first ``count`` of ``states`` (L, B, ...) are gone, see ``solve``."""


def solve(
    solver: FixedPointSolver,
    causal_map: CausalMap,
    start: Tensor,
    tolerances: Tensor,
    progress: Callable[[SweepReport], None] | None = None,
    extrapolate: bool = True,
    horizon: Callable[[Tensor], Tensor] | None = None,
    slide: Slide | None = None,
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
    always takes F(X) unmixed, which is exact.

    With ``slide``, ``start`` holds only the first L of the S entries. Once entries are final for every image, ``slide``
    is told how many: it drops them and appends as many of those that follow, and entry 0 of all arguments is from then
    on the first held. The solution then has the last L states. Raises ShapeError where ``start`` and ``tolerances`` do
    not fit.
    """
    if start.ndim < 3 or tolerances.ndim != 1 or not _fits(len(start), len(tolerances), slide is not None):
        raise ShapeError(
            f"start {tuple(start.shape)} and tolerances {tuple(tolerances.shape)} do not fit; "
            "give states of shape (S, B, ...) with values behind the two axes, and S tolerances"
        )
    loop = _Loop(start, tolerances, solver.window or len(start), solver.mixes, extrapolate, horizon)
    memory = solver.init(start)
    limit = min(len(tolerances), solver.max_sweeps or len(tolerances))
    while loop.sweep < limit and not loop.done:
        if slide is not None:
            memory = loop.slide(slide, solver, memory)
        stop = loop.stop
        images = loop.advance(causal_map(loop.states, loop.prefix, stop), stop)
        if loop.done:
            loop.states = images
        else:
            memory = loop.move(solver, images, memory, stop)
        if progress is not None:
            progress(loop.report())
    return loop.solution()


def _fits(held: int, total: int, slides: bool) -> bool:
    return 0 < held <= total if slides else held == total


class _Loop:
    """The bookkeeping of one solve: iterate, final prefix, counts and histories.

    ``base`` entries of all ``total`` have gone, ``length`` are held; ``prefix`` and ``stop`` count from the first held.
    """

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
        self.base, self.total = 0, len(tolerances)
        exact = finest_dtype(start.device)
        self.all_tolerances = tolerances.to(start.device, exact).view(-1, 1)
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
    def tolerances(self) -> Tensor:
        """Those of the states held, (L, 1)."""
        return self.all_tolerances[self.base : self.base + self.length]

    @property
    def sees_end(self) -> bool:
        """Whether the last state of all is held."""
        return self.base + self.length == self.total

    @property
    def complete(self) -> Tensor:
        """The images that nothing remains to be done for, (B,)."""
        return (self.prefix >= self.length) & self.sees_end | self.failed

    @property
    def done(self) -> bool:
        return bool(self.complete.all())

    def slide(self, slide: Slide, solver: FixedPointSolver, memory: Any) -> Any:
        """Let the states go that are final for every image, as far as others follow; returns the solver's memory."""
        final = torch.where(self.failed, self.length, self.prefix).min()
        count = min(int(final), self.total - self.base - self.length)
        if count == 0:
            return memory
        last = self.states[-1:]
        self.states = slide(self.states, count)
        if solver.carry:
            self.states = torch.cat([self.states[:-count], last.expand(count, *last.shape[1:])])
        self.base += count
        self.prefix = torch.where(self.failed, self.length, self.prefix - count)
        return solver.slide(self.states, memory, count)

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
        """The number of every state held, from 0, (L, 1)."""
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
        self.broken = torch.where(active & ~exact_is_finite, self.base + self.prefix, self.broken)
        self.prefix = torch.where(self.failed, self.length, self._extended(within, active))
        last = norms.gather(0, stop.view(1, -1) - 1)[0]
        self.residuals.append(torch.where(active, last, torch.nan))
        self._judge(active, (stop == self.length) & self.sees_end, norms)
        self.finished.append(self._final().cpu())
        return images

    def _judge(self, active: Tensor, reached: Tensor, norms: Tensor) -> None:
        """Estimate the error of the last state; end the solve of images where it is within its tolerance."""
        follows = reached | (self.horizon is not None and self.sees_end)
        self.lasts.append(torch.where(follows & self.extrapolate, norms[-1], torch.inf))
        estimated = estimate_error(self.lasts, norms.amax(0), self.mixed)
        known = torch.where(self.complete & ~estimated.isfinite(), norms[-1], estimated)
        bounded = torch.minimum(known, self.all_tolerances[-1])  # no state moves more: that ends the solve by itself
        known = torch.where(self.complete, bounded, known)
        known = torch.where(self.sweeps == self.total, 0.0, known)
        self.errors = torch.where(active & ~self.failed, known, self.errors)
        accepted = active & reached & ~self.failed & (known <= self.all_tolerances[-1])
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
        every = torch.zeros(self.total, self.batch, dtype=self.norms.dtype)
        every[self.base : self.base + self.length] = self.norms.cpu()
        counts = (self._final().cpu(), self.residuals[-1].cpu(), every)
        return SweepReport(self.sweep, *counts, self.states, self.evaluations.cpu(), self.base + 1)

    def _final(self) -> Tensor:
        """The final states of every image, those that have gone among them, (B,)."""
        return torch.where(self.failed, self.total, self.base + self.prefix)

    def solution(self) -> Solution:
        flags = zip(self.failed.tolist(), (~self.complete).tolist(), strict=True)
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
