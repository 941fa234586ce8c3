"""DDNM+: range-null-space consistency for observations with Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from deqir.consistency.base import AffineStep, ConsistencyRule
from deqir.consistency.checks import require_fraction, require_noise_level, required_basis, required_noises
from deqir.consistency.spectral import observed_noise, remaining_noise
from deqir.noise import StepNoises
from deqir.operators import DecomposableOperator, LinearOperator
from deqir.schedule import NoiseLevels


@dataclass(frozen=True)
class DDNMPlus(ConsistencyRule):
    """DDNM for observations with Gaussian noise (DDNM+, arXiv 2212.00490, sec. 3.3 and appendix).

    The published code agrees for denoising and inpainting. For its other operators it rotates the predicted noise in
    the directions that A does not see (it takes pixels for coefficients), and it gives directions whose singular value
    was cut off too little noise; here the paper's formulas hold for all operators. See docs/rules.md.

    ``sigma_y`` is the noise level of y in units of images in [-1, 1]: twice that of images in [0, 1]. Needs an operator
    whose singular value decomposition is known. With ``sigma_y`` = 0 it still renoises what y determines with fresh
    noise alone, unlike DDNM.
    """

    sigma_y: float
    eta: float = 0.85

    def __post_init__(self) -> None:
        require_fraction("eta", self.eta)
        require_noise_level(self.sigma_y)

    @property
    def needs_noise(self) -> bool:
        """Always: what the observation determines is renoised with fresh noise."""
        return True

    def bind(self, operator: LinearOperator, y: Tensor, levels: NoiseLevels, noises: StepNoises | None) -> DDNMPlusStep:
        """The rule for one observation ``y``. Raises OptionError for an operator without singular values."""
        basis, noises = required_basis("DDNM+", operator), required_noises("DDNM+", noises)
        return DDNMPlusStep(basis, basis.V_adjoint(basis.pinv(y)), levels, self.sigma_y, self.eta, noises)


@dataclass(frozen=True, eq=False)
class DDNMPlusStep(AffineStep):
    """DDNM+ on one problem; ``observed`` holds the coefficients of A+ y in A's singular basis."""

    operator: DecomposableOperator
    observed: Tensor
    levels: NoiseLevels
    sigma_y: float
    eta: float
    noises: StepNoises

    def parts(self, i: int, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """One serial step: what y tells better than the state enters whole, the rest by its weight."""
        a, a_next = self.levels.step(i)
        denoised = (x - sqrt(1 - a) * e) / sqrt(a)
        weights, fresh, seen = self.weights(a_next)
        z, kept = self.noises[i], sqrt(1 - self.eta**2)
        renoised = sqrt(1 - a_next) * (kept * e + self.eta * z)
        basis = self.operator.V_adjoint
        pull = weights * (self.observed - basis(denoised))
        swap = seen * (fresh * basis(z) - basis(renoised))
        return denoised + self.operator.V(pull), renoised + self.operator.V(swap)

    def weights(self, a_next: float) -> tuple[Tensor, Tensor, Tensor]:
        """Per singular value: the weight of the observation, the level of fresh noise, and whether A sees it at all.

        The noise that y brings in and the fresh noise add up to a variance of ``1 - a_next`` in every direction.
        """
        s = self.operator.singular_values(self.observed)
        level = sqrt(1 - a_next)
        seen, brought = observed_noise(s, a_next, self.sigma_y)
        trusted = brought <= level
        partial = level * sqrt(1 - self.eta**2) / torch.where(trusted, 1, brought)
        weights = seen * torch.where(trusted, 1, partial)
        fresh = torch.where(trusted, remaining_noise(level, brought), self.eta * level)
        return weights, fresh, seen
