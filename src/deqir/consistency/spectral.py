"""Noise per singular direction, for rules that work in an operator's singular basis."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor


def observed_noise(s: Tensor, a: float, sigma_y: float) -> tuple[Tensor, Tensor]:
    """Which directions A sees, and the noise level that y brings into a state at level ``a`` there.

    That is ``sqrt(a) sigma_y / s`` for singular values ``s``; meaningless where A does not see.
    """
    seen = s > 0
    return seen, sqrt(a) * sigma_y / torch.where(seen, s, 1)


def remaining_noise(level: float, brought: Tensor) -> Tensor:
    """``sqrt(level^2 - brought^2)``, zero where that is negative; gradients are finite everywhere."""
    variance = level**2 - brought.square()
    positive = variance > 0
    return torch.where(positive, torch.where(positive, variance, 1).sqrt(), 0)
