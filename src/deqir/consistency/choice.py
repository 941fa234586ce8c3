"""Rules by name, and what a record says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args

from deqir.consistency.base import ConsistencyRule
from deqir.consistency.checks import require_fraction, require_noise_level
from deqir.consistency.ddnm import DDNM
from deqir.consistency.ddnm_plus import DDNMPlus
from deqir.consistency.ddrm import DDRM
from deqir.consistency.diffpir import DiffPIR
from deqir.consistency.time_travel import TimeTravel
from deqir.errors import OptionError
from deqir.operators import DecomposableOperator, LinearOperator

RuleName = Literal["auto", "ddnm", "ddnm+", "diffpir", "ddrm"]

NAMES: Mapping[type[ConsistencyRule], str] = {
    DDNM: "ddnm",
    DDNMPlus: "ddnm+",
    DiffPIR: "diffpir",
    DDRM: "ddrm",
    TimeTravel: "time travel",
}


def choose_rule(name: str, operator: LinearOperator, sigma_y: float, eta: float) -> ConsistencyRule:
    """The rule called ``name`` for observations of noise level ``sigma_y``, in units of images in [-1, 1].

    ``auto`` is DDNM where there is no noise, DDNM+ where there is and the operator is decomposable, else DiffPIR.
    ``eta`` is that of DDNM, DDNM+ and DDRM; DiffPIR has its own zeta. Raises OptionError for another name, and for
    values out of range, whichever rule it is.
    """
    require_noise_level(sigma_y)
    require_fraction("eta", eta)
    if name not in get_args(RuleName):
        raise OptionError(f"rule is {name!r}; choose one of {', '.join(get_args(RuleName))}")
    if name == "auto":
        noisy = "ddnm+" if isinstance(operator, DecomposableOperator) else "diffpir"
        name = noisy if sigma_y else "ddnm"
    if name == "ddnm":
        return DDNM(eta)
    if name == "diffpir":
        return DiffPIR(sigma_y)
    return DDNMPlus(sigma_y, eta) if name == "ddnm+" else DDRM(sigma_y, eta)


def describe_rule(rule: ConsistencyRule) -> dict[str, Any]:
    """``rule`` by name and ``rule_settings`` by theirs, as JSON can hold them; a rule that is unknown by its class."""
    values: dict[str, Any] = {}
    if is_dataclass(rule):
        values = {item.name: getattr(rule, item.name) for item in fields(rule)}
    settings = {key: describe_rule(v) if isinstance(v, ConsistencyRule) else v for key, v in values.items()}
    return {"rule": NAMES.get(type(rule), type(rule).__name__), "rule_settings": settings}
