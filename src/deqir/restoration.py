"""The facade: observation in, restored image and statistics out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from deqir.adjoints import Adjoint
from deqir.arguments import real_number, whole_number
from deqir.averaging import EstimateMean, ReplayedMean, WalkedMean, averaged_steps
from deqir.batching import MaxBatch, checked_max_batch, is_out_of_memory
from deqir.chain import SamplingChain, serial_solution
from deqir.choice import choose_solver
from deqir.consistency import ConsistencyRule, RuleName, TimeTravel, choose_rule
from deqir.equilibrium import solve_equilibrium
from deqir.errors import DeviceError, NonFiniteError, OptionError, ShapeError
from deqir.noise import SeededNoise
from deqir.operators import LinearOperator, as_operator
from deqir.precision import GREY_LEVELS_PER_UNIT, finest_dtype
from deqir.preconditioner import BandedSecant
from deqir.priors import Denoiser, require_label
from deqir.repetition import require_repeatable, unrepeatable
from deqir.results import Progress, Restoration, Statistics, Watch, to_unit
from deqir.schedule import NoiseLevels, Spacing
from deqir.solvers import Anderson, FixedPointSolver, Picard, Solution, TriangularAnderson
from deqir.tiling import TiledDenoiser, TileSize, checked_tiling, choose_tile

SolverName = Literal["auto", "serial", "picard", "anderson", "triangular", "preconditioned"]
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Restorer:
    """Restores observations ``y = A x`` with a diffusion prior.

    ``operator`` may be anything that ``deqir.operators.as_operator`` takes without a shape, a deepinv physics say.
    ``steps`` timesteps (1..T, chosen by ``spacing``, or the timesteps that ``spacing`` lists), DDIM's ``eta`` in
    [0, 1], ``noise``: the standard deviation of the observation's Gaussian noise for images in [0, 1], ``rule`` one of
    auto (DDNM for noise 0, else DDNM+ where the operator is decomposable, else DiffPIR), ddnm, ddnm+, diffpir, ddrm or
    a ConsistencyRule, which brings its own settings. With ``travel_repeat`` above 1 the chain walks every
    ``travel_length`` of its steps that often (time travel), at one network call each. ``solver`` one of auto, serial,
    picard, anderson, triangular, preconditioned or a FixedPointSolver, ``tolerance`` to the serial chain in grey levels
    of 0..255, ``max_sweeps`` (None: as many as the serial chain has network calls, which always suffices), ``window``:
    how many timesteps a sweep hands to the network at most (None: all), ``max_batch`` images in one network call at
    most (auto or None: by image size and memory; halved where memory runs out), ``device`` (None: CUDA where there is
    one) and ``dtype`` float32, float64, bfloat16 or float16 (the half types run the network under autocast, states stay
    float32). ``keep_trajectory`` keeps all states in the result, for a warm start. ``tile``: the network sees images
    larger than this many pixels as overlapping tiles ("auto": images of more than four of the prior's tiles, None:
    never), neighbours sharing ``tile_overlap`` pixels (None: an eighth of the tile). ``average``: the restored image is
    the mean of what the last states whose noise is at most that (units of 0..1) tell of the clean image (0: the last
    state alone, as published); a serial chain has that at no cost, a parallel solve makes one more network call.
    """

    prior: Denoiser
    operator: LinearOperator
    steps: int = 100
    eta: float = 0.85
    noise: float = 0.0
    solver: SolverName | FixedPointSolver = "auto"
    tolerance: float = 0.5
    max_sweeps: int | None = None
    window: int | None = None
    max_batch: MaxBatch = "auto"
    spacing: Spacing = "cubic"
    device: str | torch.device | None = None
    dtype: str = "float32"
    keep_trajectory: bool = False
    rule: RuleName | ConsistencyRule = "auto"
    travel_length: int = 1
    travel_repeat: int = 1
    tile: TileSize = "auto"
    tile_overlap: int | None = None
    average: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "operator", as_operator(self.operator))
        for name in ("steps", "max_sweeps", "window", "travel_length", "travel_repeat"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        for name in ("eta", "noise", "tolerance", "average"):
            real_number(name, getattr(self, name))
        if self.dtype not in DTYPES:
            raise OptionError(f"dtype is {self.dtype!r}; choose one of {', '.join(DTYPES)}")
        if not isinstance(self.solver, FixedPointSolver) and self.solver not in get_args(SolverName):
            raise OptionError(f"solver is {self.solver!r}; choose one of {', '.join(get_args(SolverName))}")
        if not self.tolerance >= 0:
            raise OptionError(f"tolerance is {self.tolerance} grey levels; choose zero or more")
        if self.max_sweeps is not None and self.max_sweeps < 1:
            raise OptionError(f"max_sweeps is {self.max_sweeps}; choose at least 1")
        if self.window is not None and self.window < 1:
            raise OptionError(f"window is {self.window}; choose at least 1 timestep")
        checked_max_batch(self.max_batch)
        checked_tiling(self.tile, self.tile_overlap)
        _ = self.chosen_rule
        require_label(self.prior)
        if not isinstance(self.spacing, str):
            object.__setattr__(self, "spacing", tuple(self.spacing))
            object.__setattr__(self, "steps", len(self.spacing))
        _ = averaged_steps(self._levels, self.average)

    def restore(
        self,
        y: Tensor,
        seed: int | Sequence[int] = 0,
        progress: Callable[[Progress], None] | None = None,
        start: Tensor | None = None,
        *,
        initial_noise: Tensor | None = None,
        noises: Tensor | None = None,
        adjoint: Adjoint | None = None,
    ) -> Restoration:
        """Restore ``y``, a batch of observations of images in [0, 1].

        ``seed``: one an image; a single number stands for itself, itself + 1, ... over the batch. ``start``: the
        ``trajectory`` of an earlier restoration with the same steps and seeds and a similar observation, from which a
        parallel solve begins; it saves sweeps and does not change the answer. ``initial_noise`` (B, C, H, W) and
        ``noises`` (S, B, C, H, W), C the prior's channels, replace what the seeds draw. With an ``adjoint`` the image
        (and the trajectory) of the result can be differentiated with respect to ``y``, those noises and the tensors of
        the operator. Raises ShapeError where the observation does not fit the operator or another argument the chain,
        NonFiniteError where one of them holds NaN, DeviceError where the device is missing or its memory too small even
        with one image in a network call, NondeterminismError where a parallel solver is asked for and the prior answers
        differently to the same input, or mixes the images of a batch.
        """
        y = _checked(y)
        device = self._device
        try:
            with torch.set_grad_enabled(adjoint is not None):
                drawn = (initial_noise, noises)
                return self._restore(y.to(device, self._state_dtype), seed, progress, start, drawn, adjoint)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise DeviceError(
                f"{device} ran out of memory, and smaller batches do not help; "
                "choose smaller images or fewer of them, fewer steps, or solver serial"
            ) from None

    def chain(self, y: Tensor, seed: int | Sequence[int] = 0) -> SamplingChain:
        """The chain that restores the observations ``y`` in [0, 1], itself in [-1, 1] units, not yet solved."""
        y = _checked(y).to(self._device, self._state_dtype)
        return self._chain(y, self.operator.image_shape(tuple(y.shape[1:])), seed)[0]

    def draw(self, y: Tensor, seed: int | Sequence[int] = 0) -> SeededNoise:
        """The noise that ``restore`` draws for the observations ``y``: images of the prior's channels.

        Raises OptionError where the number of seeds is not that of the observations.
        """
        if isinstance(seed, Iterable) and not isinstance(seed, str) and getattr(seed, "ndim", 1) != 0:
            seeds = [whole_number("seed", one) for one in seed]
        else:
            seeds = [whole_number("seed", seed) + b for b in range(len(y))]
        if len(seeds) != len(y):
            raise OptionError(f"{len(seeds)} seeds for {len(y)} observations; give one seed an observation")
        _, height, width = self.operator.image_shape(tuple(y.shape[1:]))
        shape = (self.prior.channels, height, width)
        count = self._travelling_rule.noise_count(self._levels)
        return SeededNoise(shape, seeds, count, self._device, self._state_dtype)

    @property
    def chosen_rule(self) -> ConsistencyRule:
        """The consistency rule that ``rule`` means, in the chain's [-1, 1] units."""
        if isinstance(self.rule, ConsistencyRule):
            return self.rule
        return choose_rule(self.rule, self.operator, 2 * self.noise, self.eta)

    @property
    def _travelling_rule(self) -> ConsistencyRule:
        rule = self.chosen_rule
        return rule if self._levels.descents is None or isinstance(rule, TimeTravel) else TimeTravel(rule)

    @property
    def _levels(self) -> NoiseLevels:
        levels = self.prior.schedule.levels(self.steps, self.spacing)
        return levels.with_travel(self.travel_length, self.travel_repeat)

    @property
    def _device(self) -> torch.device:
        device = resolve_device(self.device)
        if self._state_dtype != torch.float32 and finest_dtype(device) == torch.float32:
            raise DeviceError(f"device {device} has no float64; choose dtype float32, or device cpu")
        return device

    @property
    def _state_dtype(self) -> torch.dtype:
        return torch.float64 if self.dtype == "float64" else torch.float32

    def _restore(
        self,
        y: Tensor,
        seed: int | Sequence[int],
        progress: Callable[[Progress], None] | None,
        start: Tensor | None,
        drawn: tuple[Tensor | None, Tensor | None],
        adjoint: Adjoint | None,
    ) -> Restoration:
        started = time.perf_counter()
        shape = self.operator.image_shape(tuple(y.shape[1:]))
        chain, noise = self._chain(y, shape, seed, *drawn)
        grey = shape[0] == 1 and self.prior.channels == 3
        watch = Watch(progress, len(chain), grey)
        kept = self._kept if adjoint is None else None
        method = self._choose(chain, kept)
        noise.held = method.noises_held(kept)
        solution, value = self._solution(chain, method, watch, start, adjoint)
        lost = (solution.broken >= 0).to(y.device).view(-1, 1, 1, 1)
        image = torch.where(lost, torch.nan, to_unit(value, grey))
        stats = Statistics(
            method.name,
            method.reason,
            tuple(solution.sweeps.tolist()),
            tuple(solution.evaluations.tolist()),
            time.perf_counter() - started,
            *_limits(chain),
            method.window,
        )
        error = (self.operator.forward(image.detach()) - y).detach().flatten(1).square().mean(1).sqrt()
        residuals, estimated = (part * GREY_LEVELS_PER_UNIT for part in (solution.residuals, solution.errors))
        trajectory = solution.states if self.keep_trajectory else None
        timesteps = chain.step.levels.timesteps.tolist()
        failed_at = tuple(None if step < 0 else int(timesteps[step]) for step in solution.broken.tolist())
        return Restoration(image, solution.status, stats, residuals, estimated, error, trajectory, failed_at)

    def _chain(
        self,
        y: Tensor,
        shape: tuple[int, int, int],
        seed: int | Sequence[int],
        initial_noise: Tensor | None = None,
        noises: Tensor | None = None,
    ) -> tuple[SamplingChain, SeededNoise]:
        """The chain in [-1, 1] units and its noise; a grey image under a colour prior travels as three equal ones."""
        channels = self.prior.channels
        if shape[0] not in (channels, 1):
            raise ShapeError(
                f"the restored image has {shape[0]} channels, but the prior {self.prior.name} has {channels}"
            )
        operator = self.operator
        unit_response = operator.forward(y.new_ones(len(y), *shape))
        chain_y = 2 * y - unit_response
        if shape[0] != channels:
            single = chain_y if chain_y.ndim > 2 and chain_y.shape[1] == 1 else chain_y[:, None]
            chain_y = single.expand(-1, channels, *single.shape[2:])
            shape = (channels, *shape[1:])
            operator = operator.at(shape)
        levels, rule = self._levels, self._travelling_rule
        noise = self.draw(y, seed)
        every = noise if noises is None else _checked_like(noises, (noise.steps, len(y), *shape), y, "noises")
        first = noise.initial if initial_noise is None else initial_noise
        first = _checked_like(first, (len(y), *shape), y, "initial_noise")
        step = rule.bind(operator, chain_y, levels, every if rule.needs_noise else None)
        denoiser, max_batch = self.prior.to(y.device, DTYPES[self.dtype]), checked_max_batch(self.max_batch)
        tile = choose_tile(self.prior, shape[1:], self.tile)
        if tile is not None:
            denoiser = TiledDenoiser(denoiser, tile, self.tile_overlap, max_batch)
        return SamplingChain(denoiser, step, step.first_state(first), max_batch), noise

    def _choose(self, chain: SamplingChain, kept: int | None) -> _Method:
        if isinstance(self.solver, FixedPointSolver):
            require_repeatable(chain, self.prior.name)
            return _Method(type(self.solver).__name__.lower(), "asked for", self._bounded(self.solver, self.window))
        name, reason, window = str(self.solver), "asked for", self.window
        if name == "auto":
            choice = choose_solver(chain, self.window, bounded=kept is not None)
            name, reason, window = choice.solver, choice.reason, choice.window
            fault = "" if name == "serial" else unrepeatable(chain)
            if fault:
                name, reason = "serial", f"the prior {fault}"
        elif name != "serial":
            require_repeatable(chain, self.prior.name)
        if name == "serial":
            return _Method(name, reason)
        solver = {"anderson": Anderson(), "triangular": TriangularAnderson()}.get(name, Picard())
        model = BandedSecant() if name == "preconditioned" else None
        return _Method(name, reason, self._bounded(solver, window), model)

    def _bounded(self, solver: FixedPointSolver, window: int | None) -> FixedPointSolver:
        """``solver`` with this restorer's limit of sweeps and the ``window``, where it has none of its own."""
        return replace(
            solver,
            max_sweeps=self.max_sweeps if solver.max_sweeps is None else solver.max_sweeps,
            window=window if solver.window is None else solver.window,
        )

    @property
    def _kept(self) -> int | None:
        """How many of the last states the result is made of; None: all."""
        if self.keep_trajectory:
            return None
        return 1 + len(averaged_steps(self._levels, self.average)) if self.average else 1

    def _solution(
        self, chain: SamplingChain, method: _Method, watch: Watch, start: Tensor | None, adjoint: Adjoint | None
    ) -> tuple[Solution, Tensor]:
        """The solved chain and its restored image, the last state or the mean of the last estimates."""
        mean = None
        if self.average:
            levels = chain.step.levels
            mean = EstimateMean(averaged_steps(levels, self.average), levels, self.noise > 0)
        if mean is not None and adjoint is not None:
            raise OptionError(f"average is {self.average}, which cannot be differentiated; choose 0 with an adjoint")
        if method.solver is not None:
            if mean is None:
                solution = self._equilibrium(chain, method, watch, start, adjoint)
                return solution, solution.value
            replayed = ReplayedMean(mean)
            return replayed.of(chain, self._equilibrium(replayed.watch(chain), method, watch, start, adjoint))
        walked = None if mean is None else WalkedMean(mean)
        keep = self.keep_trajectory or adjoint is not None
        walk = partial(serial_solution, chain, keep, watch.serial, watch.estimates(walked))
        solution = walk() if adjoint is None else adjoint.solution(chain, walk)
        return solution, solution.value if walked is None else walked.value

    def _equilibrium(
        self, chain: SamplingChain, method: _Method, watch: Watch, start: Tensor | None, adjoint: Adjoint | None
    ) -> Solution:
        assert method.solver is not None
        shape = (len(chain), *chain.initial_noise.shape)
        first = None if start is None else _checked_like(start, shape, chain.initial_noise, "start")
        model = method.preconditioner
        watching = watch.parallel
        return solve_equilibrium(chain, method.solver, self.tolerance, first, model, watching, adjoint, self._kept)


@dataclass(frozen=True)
class _Method:
    """How a chain is solved and why; no solver means serially."""

    name: str
    reason: str
    solver: FixedPointSolver | None = None
    preconditioner: BandedSecant | None = None

    @property
    def window(self) -> int | None:
        """The timesteps that a sweep hands to the network at most."""
        return None if self.solver is None else self.solver.window

    def noises_held(self, kept: int | None) -> int | None:
        """How many noises stay in memory where the chain keeps ``kept`` states (None: all): two a state, some more."""
        return None if kept is None or self.window is None else 2 * (max(kept, self.window) + 1)


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The torch device meant; None is CUDA where there is one, else the CPU. Raises DeviceError where it is missing.

    Raises OptionError for a word that names none.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise OptionError(f"device is {device!r}; choose cpu, cuda, cuda:1 (the second GPU) or mps") from None
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise DeviceError(f"device {device} is not available on this machine; use cpu, cuda or mps") from None
    return chosen


def _limits(chain: SamplingChain) -> tuple[int, int, int | None]:
    """The limit on the images, or tiles, in one network call now, how often it was halved, and the tile's side."""
    denoiser = chain.denoiser
    if isinstance(denoiser, TiledDenoiser):
        return denoiser.limit(chain.initial_noise), denoiser.batcher.halvings, denoiser.tile
    return chain.batcher.limit(chain.initial_noise), chain.batcher.halvings, None


def _checked(y: Tensor) -> Tensor:
    if not isinstance(y, Tensor):
        raise ShapeError(f"the observation is of type {type(y).__name__}; give a tensor, as torch.from_numpy makes one")
    if y.ndim < 2 or not y.numel():
        raise ShapeError(f"the observation has shape {tuple(y.shape)}; give a batch (B, C, H, W) or (B, measurements)")
    if not y.is_floating_point():
        raise ShapeError(f"the observation holds {y.dtype}; give floating-point values in [0, 1]")
    if not bool(y.isfinite().all()):
        raise NonFiniteError("the observation holds NaN or infinite values; replace them or mask those pixels")
    return y


def _checked_like(values: Tensor, shape: tuple[int, ...], like: Tensor, name: str) -> Tensor:
    """``values`` on the device and in the dtype of ``like``, once their shape and finiteness are checked."""
    if values.shape != shape:
        raise ShapeError(f"{name} has shape {tuple(values.shape)}; give the shape {shape} of this chain")
    if not bool(values.isfinite().all()):
        raise NonFiniteError(f"{name} holds NaN or infinite values; give finite ones")
    return values.to(like)
