"""The fast Walsh-Hadamard transform."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deqir.errors import ShapeError


def walsh_hadamard(x: Tensor) -> Tensor:
    """The orthonormal Walsh-Hadamard transform along the last axis of ``x`` (..., n), natural order, its own inverse.

    O(n log n) butterflies (Fino and Algazi 1976). Raises ShapeError unless n is a power of two.
    """
    length = x.shape[-1]
    if length < 1 or length & (length - 1):
        raise ShapeError(f"the last axis has length {length}; the Walsh-Hadamard transform needs a power of two")
    shape, step = x.shape, 1
    while step < length:
        first, second = x.reshape(*shape[:-1], length // (2 * step), 2, step).unbind(-2)
        x = torch.stack((first + second, first - second), dim=-2)
        step *= 2
    return x.reshape(shape) / math.sqrt(length)
