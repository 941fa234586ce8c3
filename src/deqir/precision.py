"""The floating-point type in which a device can keep sums, norms and tolerances."""

from __future__ import annotations

import torch


def finest_dtype(device: torch.device) -> torch.dtype:
    """float64, and float32 on Apple's GPU (``mps``), which has nothing finer."""
    return torch.float32 if device.type == "mps" else torch.float64
