"""Checks of what rules are given, each with the sentence a user reads."""

from __future__ import annotations

from math import inf

from deqir.errors import OptionError
from deqir.noise import StepNoises
from deqir.operators import DecomposableOperator, LinearOperator


def require_fraction(name: str, value: float) -> None:
    """Raise OptionError unless ``value`` lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise OptionError(f"{name} is {value}; choose a number from 0 to 1")


def require_noise_level(sigma_y: float) -> None:
    """Raise OptionError unless ``sigma_y`` is a finite number of at least zero."""
    if not 0 <= sigma_y < inf:
        raise OptionError(f"the noise level is {sigma_y}; choose zero or a positive number")


def required_noises(rule: str, noises: StepNoises | None) -> StepNoises:
    """``noises``, which ``rule`` draws on. Raises OptionError where there are none."""
    if noises is None:
        raise OptionError(f"{rule} needs the noise of every step, but no noises are given; draw them")
    return noises


def required_basis(rule: str, operator: LinearOperator) -> DecomposableOperator:
    """``operator``, whose singular values ``rule`` needs. Raises OptionError where they are not known."""
    if not isinstance(operator, DecomposableOperator):
        raise OptionError(
            f"{type(operator).__name__} has no known singular values, which {rule} needs; choose rule diffpir or ddnm"
        )
    return operator
