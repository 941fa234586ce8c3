"""DiffPIR: plug-and-play restoration, a proximal step towards the observation between denoising and renoising."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from torch import Tensor

from deqir.consistency.base import AffineStep, ConsistencyRule
from deqir.consistency.checks import require_fraction, require_noise_level, required_noises
from deqir.errors import OptionError
from deqir.noise import StepNoises
from deqir.operators import LinearOperator
from deqir.operators.proximal import data_proximal
from deqir.schedule import NoiseLevels


@dataclass(frozen=True)
class DiffPIR(ConsistencyRule):
    """Denoising diffusion models for plug-and-play image restoration (DiffPIR, arXiv 2305.08995, algorithm 1).

    ``xt = argmin ||y - A x||^2 + rho_i ||x - xh||^2`` with ``rho_i = lambda sigma_y^2 a_i / (1 - a_i)``, and the next
    state takes its noise from ``(x_i - sqrt(a_i) xt) / sqrt(1 - a_i)``, of which the share ``zeta`` (of the variance,
    in [0, 1]) is replaced by fresh noise. ``sigma_y`` is the noise level of y in units of images in [-1, 1], twice that
    of images in [0, 1]; with 0 the correction is DDNM's, the limit. ``lambda_`` > 0 weighs the prior. The published
    code takes sigma_y for [0, 1] and a_i for [-1, 1]: its lambda is four times this one. It also leaves out the last
    step and returns the state before it, and adds DDIM noise by an option that is off; here the paper's algorithm
    is walked to its end.

    Any operator will do: closed form where it is decomposable, else conjugate gradients to a relative residual of
    ``tolerance`` in at most ``max_iterations``.
    """

    sigma_y: float
    lambda_: float = 1.75
    zeta: float = 0.85
    tolerance: float = 1e-5
    max_iterations: int = 200

    def __post_init__(self) -> None:
        require_noise_level(self.sigma_y)
        require_fraction("zeta", self.zeta)
        if not 0 < self.lambda_ < float("inf"):
            raise OptionError(f"lambda is {self.lambda_}; choose a positive number")
        if not (self.tolerance > 0 and self.max_iterations >= 1):
            raise OptionError(
                f"tolerance is {self.tolerance} and max_iterations {self.max_iterations}; "
                "choose a positive number and at least 1"
            )

    @property
    def needs_noise(self) -> bool:
        """Whether the steps draw fresh noise: for any zeta above zero."""
        return self.zeta > 0

    def bind(self, operator: LinearOperator, y: Tensor, levels: NoiseLevels, noises: StepNoises | None) -> DiffPIRStep:
        """The rule for one observation ``y``; ``noises`` (S, B, C, H, W) may be None where zeta is 0."""
        drawn = required_noises(f"DiffPIR with zeta {self.zeta}", noises) if self.needs_noise else None
        return DiffPIRStep(self, operator, y, levels, drawn)


@dataclass(frozen=True, eq=False)
class DiffPIRStep(AffineStep):
    """DiffPIR on one problem, with the observation ``y`` (B, ...) of images in [-1, 1]."""

    rule: DiffPIR
    operator: LinearOperator
    y: Tensor
    levels: NoiseLevels
    noises: StepNoises | None

    def parts(self, i: int, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """One serial step, as the paper's algorithm 1 writes it."""
        a, a_next = self.levels.step(i)
        denoised = (x - sqrt(1 - a) * e) / sqrt(a)
        weight = self.rule.lambda_ * self.rule.sigma_y**2 * a / (1 - a)
        corrected = data_proximal(
            self.operator, self.y, denoised, weight, self.rule.tolerance, self.rule.max_iterations
        )
        noise = sqrt(1 - self.rule.zeta) * (x - sqrt(a) * corrected) / sqrt(1 - a)
        if self.noises is not None:
            noise = noise + sqrt(self.rule.zeta) * self.noises[i]
        return corrected, sqrt(1 - a_next) * noise
