"""Optimising the initial noise of a restoration (DeqIR, arXiv 2311.11600, sec. 3.3): for quality, or to steer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from deqir.adjoints import Adjoint
from deqir.differentiation import differentiable
from deqir.errors import NonFiniteError, OptionError
from deqir.losses import Candidate, Loss
from deqir.optimizers import OPTIMIZERS, Optimizer, OptimizerName
from deqir.restoration import Restorer
from deqir.results import Restoration

Variables = Literal["initial", "all"]
Stopped = Literal["iterations", "patience", "diverged", "interrupted"]
WeightedLosses = Sequence[tuple[float, Loss]]


@dataclass(frozen=True, eq=False)
class Iteration:
    """One report of the optimisation: the losses (B,) of iteration ``number``, from 0, and its ``image`` in [0, 1].

    ``terms`` holds the unweighted losses by name, ``sweeps`` the sequential network calls of the forward solve.
    """

    number: int
    loss: Tensor
    terms: dict[str, Tensor]
    image: Tensor
    sweeps: int


@dataclass(frozen=True, eq=False)
class OptimizationState:
    """What an interrupted optimisation goes on from; tensors alone, so that safetensors can hold it.

    ``losses`` (iterations, B) is the history; ``best_noise`` belongs to ``best_loss`` (B,), its smallest entries.
    ``noise`` is where the next iteration starts and ``memory`` what its optimizer remembers.
    """

    noise: Tensor
    best_noise: Tensor
    best_loss: Tensor
    losses: Tensor
    memory: dict[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name."""
        own = {key: value for key, value in vars(self).items() if key != "memory"}
        return own | {f"memory.{key}": value for key, value in self.memory.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> OptimizationState:
        """The state that ``tensors`` hold. Raises OptionError where they are not those of a state."""
        names = ("noise", "best_noise", "best_loss", "losses")
        if any(name not in tensors for name in names):
            raise OptionError("the saved state is not that of an optimisation; start again without it")
        memory = {key.removeprefix("memory."): value for key, value in tensors.items() if key.startswith("memory.")}
        noise, best_noise, best_loss, losses = (tensors[name] for name in names)
        return cls(noise, best_noise, best_loss, losses, memory)


@dataclass(frozen=True, eq=False)
class OptimizedRestoration:
    """The best restoration found, solved again from ``noise``: that of the smallest loss, image by image.

    ``noise`` (N, B, C, H, W) holds x_0 and, where they were optimised too, the noises of the steps. ``losses``
    (iterations, B) is the whole history, ``best`` (B,) the iteration taken, ``stopped`` why the last was the last.
    """

    restoration: Restoration
    noise: Tensor
    losses: Tensor
    best: Tensor
    stopped: Stopped
    state: OptimizationState

    @property
    def image(self) -> Tensor:
        """(B, C, H, W), nominally in [0, 1]."""
        return self.restoration.image


@dataclass(frozen=True)
class NoiseOptimizer:
    """Minimises a weighted sum of losses over the noise of a restoration.

    ``optimizer`` is adam, lbfgs (one image at a time) or spherical (steepest descent with momentum that keeps every
    noise image's norm, and turns it by ``learning_rate`` radians at most); ``learning_rate`` None is its usual one.
    ``variables``: "initial" for x_0 alone, "all" for the noise of every step as well, which matters where eta is above
    zero: such a chain forgets x_0. It ends after ``iterations``, or when ``patience`` of them in a row improved no
    image's best loss by ``minimum`` of itself. ``adjoint`` None is implicit for parallel solvers and unrolled for the
    serial one. Parallel solves start from the last equilibrium. Raises OptionError where an option is out of its range.
    """

    restorer: Restorer
    losses: WeightedLosses
    iterations: int = 50
    optimizer: OptimizerName = "adam"
    learning_rate: float | None = None
    variables: Variables = "initial"
    patience: int = 10
    minimum: float = 1e-3
    adjoint: Adjoint | None = None

    def __post_init__(self) -> None:
        if not self.losses:
            raise OptionError("there is no loss to minimise; give at least one (weight, loss)")
        if self.optimizer not in get_args(OptimizerName):
            raise OptionError(
                f"the optimizer is {self.optimizer!r}; choose one of {', '.join(get_args(OptimizerName))}"
            )
        if self.variables not in get_args(Variables):
            raise OptionError(f"variables is {self.variables!r}; choose initial or all")
        if self.iterations < 1 or self.patience < 1:
            raise OptionError(
                f"iterations is {self.iterations} and patience {self.patience}; choose at least 1 of each"
            )
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise OptionError(f"the learning rate is {self.learning_rate}; choose a number above zero")
        if not 0 <= self.minimum < 1:
            raise OptionError(f"minimum is {self.minimum}; choose a number from 0 up to, not including, 1")

    def run(
        self,
        y: Tensor,
        seed: int | Sequence[int] = 0,
        progress: Callable[[Iteration], None] | None = None,
        state: OptimizationState | None = None,
        initial_noise: Tensor | None = None,
    ) -> OptimizedRestoration:
        """Optimise the restoration of the observations ``y`` (B, ...) in [0, 1].

        It begins with the noise of ``seed``, with ``initial_noise`` (B, C, H, W), or goes on from the ``state`` of an
        earlier run. An interrupt (KeyboardInterrupt) ends it with the best so far. Raises NonFiniteError where the loss
        is not finite at the start, OptionError where it has no gradient; diverging later ends it with the best so far.
        """
        search = _Search(self, y, seed, initial_noise, state)
        stopped: Stopped = "iterations"
        try:
            while search.count < self.iterations:
                iteration = search.iterate()
                if progress is not None:
                    progress(iteration)
                if search.diverged:
                    stopped = "diverged"
                    break
                if search.idle >= self.patience:
                    stopped = "patience"
                    break
        except KeyboardInterrupt:
            if search.count == 0:
                raise
            stopped = "interrupted"
        return search.result(stopped)


class _Search:
    """One run: where it is, the best it has seen, and how long that was ago."""

    def __init__(
        self,
        settings: NoiseOptimizer,
        y: Tensor,
        seed: int | Sequence[int],
        initial_noise: Tensor | None,
        state: OptimizationState | None,
    ):
        self.settings, self.y, self.seed = settings, y, seed
        restorer, self.adjoint = differentiable(settings.restorer, y, settings.adjoint)
        self.restorer = replace(restorer, keep_trajectory=restorer.solver != "serial")
        self.trajectory: Tensor | None = None
        noise = _drawn(settings, y, seed, initial_noise)
        if state is None:
            empty, infinite = noise.new_empty(0, len(y)), noise.new_full((len(y),), torch.inf)
            state = OptimizationState(noise, noise, infinite, empty, {})
        elif state.noise.shape != noise.shape:
            shapes = f"{tuple(state.noise.shape)}, not {tuple(noise.shape)}"
            raise OptionError(f"the saved state is for noise of shape {shapes}; start again without it")
        self.noise = state.noise.to(noise).clone().requires_grad_()
        self.best_noise, self.best_loss = state.best_noise.to(noise), state.best_loss.to(noise)
        self.losses = list(state.losses.to(noise))
        self.optimizer: Optimizer = OPTIMIZERS[settings.optimizer](self.noise, settings.learning_rate, state.memory)
        self.idle = 0
        self.diverged = False

    @property
    def count(self) -> int:
        """Iterations so far, those of the state that it goes on from among them."""
        return len(self.losses)

    def iterate(self) -> Iteration:
        """Evaluate where the noise is, keep it if it is the best, and move on."""
        seen: list[Iteration] = []

        def evaluate() -> Tensor:
            iteration, total = self._evaluate()
            seen.append(iteration)
            return total

        self.optimizer.step(evaluate)
        iteration = seen[0]
        self.losses.append(iteration.loss)
        return iteration

    def _evaluate(self) -> tuple[Iteration, Tensor]:
        """The losses of the noise as it is, their gradient left in it."""
        restored = self._restore(self.noise, self.adjoint)
        candidate = Candidate(restored.image, self.noise[0], self.y.to(restored.image), self.restorer.operator)
        terms = {f"{i}.{loss.name}": (weight, loss(candidate)) for i, (weight, loss) in enumerate(self.settings.losses)}
        loss = torch.stack([weight * value for weight, value in terms.values()]).sum(0)
        if not loss.requires_grad:
            names = ", ".join(term.name for _, term in self.settings.losses)
            raise OptionError(f"the loss ({names}) has no gradient; compute it from the image with torch, undetached")
        finite = bool(loss.isfinite().all())
        if not finite and not self.losses:
            bad = [name for name, (_, value) in terms.items() if not bool(value.isfinite().all())]
            names = ", ".join(name.split(".", 1)[1] for name in bad)
            raise NonFiniteError(f"the loss {names} is NaN or infinite at the start; check it and the guide")
        self.noise.grad = None
        if finite:
            loss.sum().backward()  # type: ignore[no-untyped-call]
        self.diverged = not finite or self.noise.grad is None or not bool(self.noise.grad.isfinite().all())
        if restored.trajectory is not None:
            self.trajectory = restored.trajectory.detach()
        self._remember(loss.detach())
        values = {name: value.detach() for name, (_, value) in terms.items()}
        sweeps = max(restored.stats.sweeps)
        return Iteration(self.count, loss.detach(), values, restored.image.detach(), sweeps), loss.detach().sum()

    def _restore(self, noise: Tensor, adjoint: Adjoint | None) -> Restoration:
        return self.restorer.restore(
            self.y,
            self.seed,
            start=self.trajectory,
            initial_noise=noise[0],
            noises=noise[1:] if len(noise) > 1 else None,
            adjoint=adjoint,
        )

    def _remember(self, loss: Tensor) -> None:
        """Keep the noise of every image whose loss is its best."""
        better = loss < self.best_loss
        worthwhile = loss < self.best_loss - self.settings.minimum * self.best_loss.abs().nan_to_num(0, 0, 0)
        self.idle = 0 if bool(worthwhile.any()) else self.idle + 1
        self.best_noise = torch.where(better.view(1, -1, 1, 1, 1), self.noise.detach(), self.best_noise)
        self.best_loss = torch.where(better, loss, self.best_loss)

    def result(self, stopped: Stopped) -> OptimizedRestoration:
        """The best, restored once more."""
        best = self._restore(self.best_noise, None)
        losses = torch.stack(self.losses)
        state = OptimizationState(
            self.noise.detach().clone(), self.best_noise, self.best_loss, losses, self.optimizer.memory()
        )
        order = losses.nan_to_num(torch.inf, torch.inf).argmin(0)
        return OptimizedRestoration(best, self.best_noise, losses, order, stopped, state)


def _drawn(settings: NoiseOptimizer, y: Tensor, seed: int | Sequence[int], initial_noise: Tensor | None) -> Tensor:
    """The noise that is optimised, (N, B, C, H, W), as the seeds draw it or with the x_0 that is given."""
    noises = settings.restorer.draw(y, seed)
    first = noises.initial if initial_noise is None else initial_noise.to(noises.initial)
    if settings.variables == "initial":
        return first[None]
    return torch.cat([first[None], noises[0 : noises.steps]])
