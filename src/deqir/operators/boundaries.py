"""What lies beyond the edge of an image: which pixel stands for an index outside."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Boundary = Literal["circular", "reflect", "zero", "replicate"]


def fold(index: NDArray[np.int_], size: int, boundary: Boundary) -> NDArray[np.int_]:
    """The index in [0, size) that stands for each ``index``, however far outside.

    circular: the image repeats; reflect: it is mirrored with the edge pixel repeated (half-sample symmetric);
    replicate: the edge pixel goes on. For zero the result is meaningless outside: mask it with ``inside``.
    """
    if boundary == "circular":
        return index % size
    if boundary == "reflect":
        period = index % (2 * size)
        return np.minimum(period, 2 * size - 1 - period)
    return np.clip(index, 0, size - 1)


def inside(index: NDArray[np.int_], size: int) -> NDArray[np.bool_]:
    """Whether each index is in [0, size)."""
    return (index >= 0) & (index < size)
