"""Consistency rules: how an observation enters one sampling step. Each step is affine in (x_i, e_i)."""

from deqir.consistency.base import AffineStep, ConsistencyRule, Linearisation
from deqir.consistency.ddnm import DDNM, DDNMStep
from deqir.consistency.ddnm_plus import DDNMPlus, DDNMPlusStep

__all__ = [
    "DDNM",
    "AffineStep",
    "ConsistencyRule",
    "DDNMPlus",
    "DDNMPlusStep",
    "DDNMStep",
    "Linearisation",
]
