"""DDRM: each singular direction of the operator by its noise, mixed with the observation as much as one likes."""

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
class DDRM(ConsistencyRule):
    """Denoising Diffusion Restoration Models (DDRM, arXiv 2201.11793, eq. 7 and 8), for noisy or noiseless y.

    ``sigma_y`` is the noise level of y in units of images in [-1, 1], twice that of images in [0, 1] (the published
    code doubles it too). ``eta`` in [0, 1] is the fresh noise in directions that y does not tell better than the state,
    ``eta_b`` in [0, 1] how far those that it does follow y (1: wholly). Needs an operator whose singular value
    decomposition is known.

    With ``start_from_y``, as in eq. 7, x_0 already holds what y tells better than pure noise; else it is pure noise.
    The state then takes the published code's scale, with which unseen directions are unit noise; that of eq. 7 is
    smaller by ``sqrt(1 - a_0)``, about 1 - 2e-5. With ``eta_b`` = 1 and without this start the rule is DDNM+.
    """

    sigma_y: float
    eta: float = 0.85
    eta_b: float = 1.0
    start_from_y: bool = True

    def __post_init__(self) -> None:
        require_noise_level(self.sigma_y)
        require_fraction("eta", self.eta)
        require_fraction("eta_b", self.eta_b)

    @property
    def needs_noise(self) -> bool:
        """Always: what the observation determines is renoised with fresh noise."""
        return True

    def bind(self, operator: LinearOperator, y: Tensor, levels: NoiseLevels, noises: StepNoises | None) -> DDRMStep:
        """The rule for one observation ``y``. Raises OptionError for an operator without singular values."""
        basis, noises = required_basis("DDRM", operator), required_noises("DDRM", noises)
        return DDRMStep(self, basis, basis.V_adjoint(basis.pinv(y)), levels, noises)


@dataclass(frozen=True, eq=False)
class DDRMStep(AffineStep):
    """DDRM on one problem; ``observed`` holds the coefficients of A+ y in A's singular basis."""

    rule: DDRM
    operator: DecomposableOperator
    observed: Tensor
    levels: NoiseLevels
    noises: StepNoises

    def parts(self, i: int, x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """One serial step, eq. 8 in the scale of ``x_i`` (the paper's states are ``x_i / sqrt(a_i)``)."""
        a, a_next = self.levels.step(i)
        level, kept = sqrt(1 - a_next), sqrt(1 - self.rule.eta**2)
        denoised, z = (x - sqrt(1 - a) * e) / sqrt(a), self.noises[i]
        renoised = level * (kept * e + self.rule.eta * z)
        basis = self.operator.V_adjoint
        zbar = basis(z)
        seen, brought, trusted = self._trust(a_next)
        missing = self.observed - basis(denoised)
        pull = torch.where(seen & trusted, self.rule.eta_b * missing, 0)
        fresh = remaining_noise(level, self.rule.eta_b * brought) * zbar
        guided = level * (kept * sqrt(a_next) / torch.where(trusted, 1, brought) * missing + self.rule.eta * zbar)
        swap = seen * (torch.where(trusted, fresh, guided) - basis(renoised))
        return denoised + self.operator.V(pull), renoised + self.operator.V(swap)

    def first_state(self, noise: Tensor) -> Tensor:
        """x_0: what y tells better than pure noise, and noise up to its level, eq. 7."""
        if not self.rule.start_from_y:
            return noise
        a = float(self.levels.alphas[0])
        seen, brought, trusted = self._trust(a)
        level, z = sqrt(1 - a), self.operator.V_adjoint(noise)
        known = (sqrt(a) * self.observed + remaining_noise(level, brought) * z) / level
        return noise + self.operator.V((seen & trusted) * (known - z))

    def _trust(self, a: float) -> tuple[Tensor, Tensor, Tensor]:
        """Which directions A sees, the noise that y brings into a state at ``a``, and whether that is the lesser."""
        s = self.operator.singular_values(self.observed)
        seen, brought = observed_noise(s, a, self.rule.sigma_y)
        return seen, brought, brought <= sqrt(1 - a)
