"""What a restoration returns, and what it tells while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from deqir.precision import GREY_LEVELS_PER_UNIT
from deqir.solvers import Status, SweepReport

Estimates = Callable[[int, Tensor, Tensor, Tensor], None]
"""As in ``deqir.chain``: a step, its state, the noise predicted in it, and the clean image of the rule."""


@dataclass(frozen=True)
class Statistics:
    """What a restoration cost. ``sweeps`` and ``nfe`` have one entry an image.

    ``sweeps`` counts network calls that had to wait for each other (a serial chain: all), ``nfe`` the states handed to
    the network by the solve itself, ``seconds`` the wall-clock time of the whole batch. ``max_batch`` is the limit on
    the images in one network call at the end, after it was halved ``halvings`` times for lack of memory; where the
    network saw tiles of ``tile`` pixels (else None), both count tiles. ``window``: how many timesteps a sweep handed to
    the network at most (None: all, or a serial chain).
    """

    solver: str
    reason: str
    sweeps: tuple[int, ...]
    nfe: tuple[int, ...]
    seconds: float
    max_batch: int
    halvings: int
    tile: int | None = None
    window: int | None = None


@dataclass(frozen=True, eq=False)
class Restoration:
    """A restored batch.

    ``image`` (B, C, H, W) lies nominally in [0, 1]; it is not clipped, so that it agrees with the observation.
    ``status`` per image; ``residuals`` (sweeps, B): the change of the restored image in each sweep, root mean square
    in grey levels of 0..255 (empty for a serial chain); ``estimated_error`` (B,): how far the image is thought to be
    from the serial chain's, root mean square in grey levels (0: exact); ``measurement_error`` (B,): that of A x - y.
    ``trajectory`` (S, B, C, H, W) in [-1, 1] units holds x_1 .. x_S where the restorer keeps it.
    ``failed_at``: the timestep at which the chain of an image gave NaN or infinite values (None: nowhere); such an
    image is NaN, and the others of its batch are not touched by it.
    """

    image: Tensor
    status: tuple[Status, ...]
    stats: Statistics
    residuals: Tensor
    estimated_error: Tensor
    measurement_error: Tensor
    trajectory: Tensor | None = None
    failed_at: tuple[int | None, ...] = ()


@dataclass(frozen=True)
class Progress:
    """One report while restoring: ``done`` of ``total`` timesteps are final after ``sweep`` sequential calls.

    ``residual`` is the largest change of a restored image in grey levels, NaN for a serial chain; ``image``
    (B, C, H, W) in [0, 1] is the current last state, or what the states in the window tell of it; of a serial chain the
    clean image that its newest step estimates, and at the end the last state; ``nfe`` the images
    handed to the network so far, at most of any image of the batch. ``states`` in [-1, 1], with the prior's channels:
    all that a parallel solve holds, (S, B, C, H, W) or fewer, the newest of a serial chain, (1, B, C, H, W); the first
    of them is x_``first``. A parallel solve also tells how far the sweep moved every state: ``residuals`` (S, B) in
    grey levels (0: kept or not held, NaN: overflowed).
    """

    sweep: int
    done: int
    total: int
    residual: float
    image: Tensor
    nfe: int
    states: Tensor | None = None
    residuals: Tensor | None = None
    first: int = 1


@dataclass(frozen=True)
class Watch:
    """Turns what the chain and the solvers report into one kind of progress."""

    progress: Callable[[Progress], None] | None
    total: int
    grey: bool
    clean: list[Tensor] = field(default_factory=list, repr=False)

    def estimates(self, other: Estimates | None) -> Estimates | None:
        """What hears the estimates of a serial chain, for ``serial`` and for ``other``."""
        if self.progress is None:
            return other

        def heard(step: int, state: Tensor, predicted: Tensor, clean: Tensor) -> None:
            self.clean[:] = [clean.detach()]
            if other is not None:
                other(step, state, predicted, clean)

        return heard

    def serial(self, done: int, state: Tensor) -> None:
        if self.progress is not None:
            image = to_unit(self.clean[0] if self.clean and done < self.total else state, self.grey)
            self.progress(Progress(done, done, self.total, float("nan"), image, done, state[None], first=done))

    def parallel(self, report: SweepReport) -> None:
        if self.progress is not None:
            residual = float(report.residual.nan_to_num(0).max()) * GREY_LEVELS_PER_UNIT
            image = to_unit(report.states[-1] if report.guess is None else report.guess, self.grey)
            done, nfe = int(report.finished.min()), int(report.evaluations.max())
            every = report.residuals * GREY_LEVELS_PER_UNIT
            told = (residual, image, nfe, report.states, every, report.first)
            self.progress(Progress(report.sweep, done, self.total, *told))


def to_unit(x: Tensor, grey: bool) -> Tensor:
    """From the chain's [-1, 1] to [0, 1]; the equal channels of a grey image are averaged."""
    image = (x + 1) / 2
    return image.mean(1, keepdim=True) if grey else image
