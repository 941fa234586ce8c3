"""The floating-point type in which a device can keep sums, norms and tolerances; the unit of images."""

from __future__ import annotations

import torch

GREY_LEVELS_PER_UNIT = 255 / 2
"""Grey levels of an 8-bit image per unit of the chain, whose images lie in [-1, 1]."""


def finest_dtype(device: torch.device) -> torch.dtype:
    """float64, and float32 on Apple's GPU (``mps``), which has nothing finer."""
    return torch.float32 if device.type == "mps" else torch.float64
