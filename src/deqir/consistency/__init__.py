"""Consistency rules: how an observation enters one sampling step. Each step is affine in (x_i, e_i)."""

from deqir.consistency.base import AffineStep, ConsistencyRule, Linearisation
from deqir.consistency.choice import RuleName, choose_rule, describe_rule
from deqir.consistency.ddnm import DDNM, DDNMStep
from deqir.consistency.ddnm_plus import DDNMPlus, DDNMPlusStep
from deqir.consistency.ddrm import DDRM, DDRMStep
from deqir.consistency.diffpir import DiffPIR, DiffPIRStep
from deqir.consistency.time_travel import TimeTravel, TimeTravelStep

__all__ = [
    "DDNM",
    "DDRM",
    "AffineStep",
    "ConsistencyRule",
    "DDNMPlus",
    "DDNMPlusStep",
    "DDNMStep",
    "DDRMStep",
    "DiffPIR",
    "DiffPIRStep",
    "Linearisation",
    "RuleName",
    "TimeTravel",
    "TimeTravelStep",
    "choose_rule",
    "describe_rule",
]
