"""How a solved chain is differentiated: exactly by its equilibrium, roughly by a few steps, or through the serial walk.

Each adjoint gives states that carry gradients with respect to the initial noise, the observation, the noise of the
steps, the parameters of the operator and, if asked, those of the network, by plain ``loss.backward()``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from deqir.chain import SamplingChain, serial_solution
from deqir.costates import CostateChain, CostateModel
from deqir.errors import NonFiniteError, OptionError
from deqir.preconditioner import BandedSecant
from deqir.solvers import FixedPointSolver, Picard, Solution, solve

Solve = Callable[[], Solution]


class Adjoint(ABC):
    """A way to differentiate the states of a chain."""

    @abstractmethod
    def solution(self, chain: SamplingChain, solve_forward: Solve) -> Solution:
        """The chain's solution, its states differentiable; ``solve_forward`` finds them without gradients."""


@dataclass(frozen=True)
class ImplicitAdjoint(Adjoint):
    """Implicit differentiation: the adjoint fixed point, all costates at once (see ``costates``).

    It equals backpropagation through the serial chain, up to ``tolerance``, the residual allowed in every costate,
    root mean square relative to the gradient that comes in; 0 solves to the end (S sweeps). Memory is that of the
    states and of one network call. ``preconditioner`` None leaves the network's share frozen in each sweep.
    ``network_parameters`` adds those parameters of the network that require gradients. ``report`` is told of every
    adjoint solve. The backward pass raises NonFiniteError where a gradient is not finite.
    """

    solver: FixedPointSolver = field(default_factory=Picard)
    tolerance: float = 1e-3
    preconditioner: BandedSecant | None = field(default_factory=partial(BandedSecant, directions=6, ridge=1e-4))
    network_parameters: bool = False
    report: Callable[[Solution], None] | None = None

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise OptionError(f"the tolerance of the adjoint is {self.tolerance}; choose zero or more (0.001)")

    def solution(self, chain: SamplingChain, solve_forward: Solve) -> Solution:
        with torch.no_grad():
            solved = solve_forward()
        return replace(solved, states=self.attach(chain, solved.states.detach(), solved.broken >= 0)[1:])

    def attach(self, chain: SamplingChain, states: Tensor, lost: Tensor | None = None) -> Tensor:
        """x_0 .. x_S (S + 1, B, C, H, W) with gradients, from the solved ``states`` x_1 .. x_S without.

        The images ``lost`` (B,), whose states are not finite, are not evaluated again.
        """
        whole = torch.cat([chain.initial_noise.detach()[None], states])
        stepped = self._one_step(chain, whole, _wanted(chain, lost))
        linked = torch.cat([chain.initial_noise[None], states if stepped is None else stepped])
        if linked.requires_grad:
            # The costates replace the direct gradients: each then flows on through its own step alone.
            linked.register_hook(partial(self.costates, chain, whole))  # type: ignore[no-untyped-call]
        return linked

    def costates(self, chain: SamplingChain, states: Tensor, direct: Tensor | None) -> Tensor | None:
        """dL/dx_0 .. dL/dx_S (S + 1, B, C, H, W) from the ``direct`` gradients of the same shape; none from none."""
        if direct is None:
            return None
        scale = direct.flatten(2).square().mean(2).amax(0).sqrt().view(-1, 1, 1, 1)
        asked = scale != 0  # an image that the loss leaves out has no gradient, whatever its states
        scaled = direct / torch.where(scale > 0, scale, 1)
        adjoint = CostateChain(chain, states, scaled)
        with torch.no_grad():
            solved = self._solve(adjoint)
        if self.report is not None:
            self.report(solved)
        for image in (asked.flatten().cpu() & (solved.broken >= 0)).nonzero().flatten().tolist():
            raise _broken_gradient(chain, image, len(chain) - 1 - int(solved.broken[image]))
        return torch.where(asked, scale * torch.cat([solved.states.flip(0), scaled[-1:]]), 0)

    def _solve(self, adjoint: CostateChain) -> Solution:
        tolerances = torch.full((len(adjoint),), float(self.tolerance), dtype=torch.float64)
        if self.preconditioner is None:
            start = torch.zeros_like(adjoint.direct[1:])
            return solve(self.solver, adjoint.sweep, start, tolerances, extrapolate=False)
        model = CostateModel(self.preconditioner, adjoint)
        sweep, start = adjoint.preconditioned_sweep(model), adjoint.model_start(model)
        return solve(self.solver, sweep, start, tolerances, extrapolate=False)

    def _one_step(self, chain: SamplingChain, whole: Tensor, stop: Tensor) -> Tensor | None:
        """x_1 .. x_S computed from their predecessors as constants; None where nothing but x_0 has gradients."""
        step, still = chain.step, torch.zeros_like(whole[0])
        trained = self.network_parameters
        if not trained and not any(step(i, still, still).requires_grad for i in range(len(chain))):
            return None
        first = torch.zeros_like(stop)
        if trained:
            predictions = _checkpointed(chain).evaluate(whole[:-1], first, stop)
        elif _linear_part_has_gradients(chain):
            with torch.no_grad():
                predictions = chain.evaluate(whole[:-1], first, stop)
        else:
            predictions = torch.zeros_like(whole[:-1])
        moved = torch.stack([step(i, whole[i], predictions[i]) for i in range(len(chain))])
        return whole[1:] + (moved - moved.detach())


@dataclass(frozen=True)
class PhantomGradient(Adjoint):
    """The gradient through ``steps`` damped sweeps ``X <- (1 - damping) X + damping F(X)`` at the solution.

    The published choice (DeqIR, arXiv 2311.11600, sec. 3.3; Geng et al. 2021, arXiv 2111.05177). Its direction
    approximates the exact one; ``steps`` 1 and ``damping`` 1 is the one-step gradient. The backward pass raises
    NonFiniteError where a gradient is not finite.
    """

    steps: int = 1
    damping: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionError(f"steps of the phantom gradient is {self.steps}; choose at least 1")
        if not 0 < self.damping <= 1:
            raise OptionError(f"damping of the phantom gradient is {self.damping}; choose a number above 0 and up to 1")

    def solution(self, chain: SamplingChain, solve_forward: Solve) -> Solution:
        with torch.no_grad():
            solved = solve_forward()
        states, stop = solved.states.detach(), _wanted(chain, solved.broken >= 0)
        watch = _GradientWatch(chain)
        prefix, tracked = len(chain) - stop, _checkpointed(watch.from_noise())
        for _ in range(self.steps):
            swept = tracked.sweep(watch.inner(states, 1), prefix, torch.full_like(stop, len(chain)))
            states = (1 - self.damping) * states + self.damping * swept
        return replace(solved, states=watch.outer(solved.states + (states - states.detach())))


@dataclass(frozen=True)
class UnrolledAdjoint(Adjoint):
    """Backpropagation through the serial chain, which is walked whatever the solver: the reference.

    With ``checkpointing`` every network call is repeated in the backward pass, and memory is that of the states and
    of one call; without, that of S calls. The backward pass raises NonFiniteError where a gradient is not finite.
    """

    checkpointing: bool = True

    def solution(self, chain: SamplingChain, solve_forward: Solve) -> Solution:
        watch = _GradientWatch(chain)
        watched = watch.from_noise()
        with torch.enable_grad():
            walked = _checkpointed(watched) if self.checkpointing else watched
            solution = serial_solution(walked, True, watch.state)
        return replace(solution, states=watch.outer(solution.states))


class _GradientWatch:
    """Looks at the gradients of the states x_0 .. x_S of ``chain`` as they come back through it.

    Images that the loss leaves out have none, whatever the network's derivative; NonFiniteError where another one's
    is not finite.
    """

    def __init__(self, chain: SamplingChain):
        self.chain = chain
        self.asked: Tensor | None = None

    def from_noise(self) -> SamplingChain:
        """The chain, its initial noise watched; the tensor that the caller gave stays as it is."""
        noise = self.chain.initial_noise
        return replace(self.chain, initial_noise=self.inner(noise.view_as(noise)[None], 0)[0])

    def inner(self, states: Tensor, first: int) -> Tensor:
        """Watch ``states`` (N, B, C, H, W), the first of which is x_``first``; returns them."""
        if states.requires_grad:
            states.register_hook(partial(self._checked, first))  # type: ignore[no-untyped-call]
        return states

    def state(self, number: int, state: Tensor) -> None:
        """Watch x_``number`` (B, C, H, W)."""
        if state.requires_grad:
            state.register_hook(lambda gradient: self._checked(number, gradient[None])[0])  # type: ignore[no-untyped-call]

    def outer(self, states: Tensor) -> Tensor:
        """Watch the solution x_1 .. x_S, whose gradient is that of the loss; returns it."""
        if states.requires_grad:
            states.register_hook(self._begun)  # type: ignore[no-untyped-call]
        return states

    def _begun(self, direct: Tensor) -> Tensor:
        self.asked = (direct != 0).flatten(2).any(2).any(0)
        return self._checked(1, direct)

    def _checked(self, first: int, gradient: Tensor) -> Tensor:
        asked = torch.ones_like(gradient[0, :, 0, 0, 0], dtype=torch.bool) if self.asked is None else self.asked
        lost = ~gradient.isfinite().flatten(2).all(2) & asked
        if bool(lost.any()):
            state, image = lost.nonzero()[-1].tolist()
            raise _broken_gradient(self.chain, image, min(first + state, len(self.chain) - 1))
        return torch.where(asked.view(1, -1, 1, 1, 1), gradient, 0)


def _broken_gradient(chain: SamplingChain, image: int, step: int) -> NonFiniteError:
    timestep = int(chain.step.levels.timesteps[step])
    return NonFiniteError(
        f"the gradient of image {image} is NaN or infinite from timestep {timestep} on; "
        "check the loss, the prior and the dtype"
    )


@dataclass(frozen=True, eq=False)
class _Checkpointed:
    """A denoiser that keeps its input instead of its activations and computes them again when differentiated."""

    denoiser: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        predicted: Tensor = checkpoint(self.denoiser, x, timesteps, use_reentrant=False)
        return predicted


def _checkpointed(chain: SamplingChain) -> SamplingChain:
    return replace(chain, denoiser=_Checkpointed(chain.denoiser))


def _wanted(chain: SamplingChain, lost: Tensor | None) -> Tensor:
    """How many states of every image are evaluated, (B,) int64: none of those ``lost`` (B,)."""
    every = torch.full((chain.image_count,), len(chain), device=chain.initial_noise.device)
    return every if lost is None else torch.where(lost.to(every.device), 0, every)


def _linear_part_has_gradients(chain: SamplingChain) -> bool:
    """Whether the linear part of the steps, not only what the observation and the noise add, has gradients.

    The last step tells, as it never travels in time.
    """
    with torch.enable_grad():
        x = torch.zeros_like(chain.initial_noise, requires_grad=True)
        following = chain.step(len(chain) - 1, x, torch.zeros_like(x))
    slope = torch.autograd.grad(following, x, torch.ones_like(x), create_graph=True, materialize_grads=True)
    return slope[0].requires_grad
