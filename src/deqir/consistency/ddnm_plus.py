"""DDNM+: range-null-space consistency for observations with Gaussian noise."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import torch
from torch import Tensor

from deqir.consistency.base import AffineStep, ConsistencyRule
from deqir.consistency.ddnm import DDNM
from deqir.errors import OptionError
from deqir.noise import StepNoises
from deqir.operators import DecomposableOperator, LinearOperator
from deqir.schedule import NoiseLevels


@dataclass(frozen=True)
class DDNMPlus(ConsistencyRule):
    """DDNM for observations with Gaussian noise (DDNM+, arXiv 2212.00490, sec. 3.3 and appendix).

    ``sigma_y`` is the noise level of y in units of images in [-1, 1]: twice that of images in [0, 1]. Needs an operator
    whose singular value decomposition is known. With ``sigma_y`` = 0 it still renoises what y determines with fresh
    noise alone, unlike DDNM.
    """

    sigma_y: float
    eta: float = 0.85

    def __post_init__(self) -> None:
        DDNM(self.eta)
        if not 0 <= self.sigma_y < inf:
            raise OptionError(f"the noise level is {self.sigma_y}; choose zero or a positive number")

    @property
    def needs_noise(self) -> bool:
        """Always: what the observation determines is renoised with fresh noise."""
        return True

    def bind(self, operator: LinearOperator, y: Tensor, levels: NoiseLevels, noises: StepNoises | None) -> DDNMPlusStep:
        """The rule for one observation ``y``. Raises OptionError for an operator without singular values."""
        if not isinstance(operator, DecomposableOperator):
            raise OptionError(
                f"{type(operator).__name__} has no known singular values, which noisy observations need; set noise to 0"
            )
        if noises is None:
            raise OptionError("DDNM+ needs the noise of every step, but no noises are given; draw them")
        observed = operator.pinv(y)
        return DDNMPlusStep(operator, operator.V_adjoint(observed), levels, self.sigma_y, self.eta, noises)


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
        a, a_next = self.levels.alphas[i : i + 2].tolist()
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
        seen = s > 0
        level = sqrt(1 - a_next)
        brought = sqrt(a_next) * self.sigma_y / torch.where(seen, s, 1)
        trusted = brought <= level
        partial = level * sqrt(1 - self.eta**2) / brought.clamp(min=torch.finfo(s.dtype).tiny)
        weights = seen * torch.where(trusted, 1, partial)
        fresh = torch.where(trusted, (level**2 - brought**2).clamp(min=0).sqrt(), self.eta * level)
        return weights, fresh, seen
