"""Anything that describes a linear map, as an operator."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from deqir.errors import OptionError
from deqir.operators.base import LinearOperator, Shape
from deqir.operators.checks import image_shape_or_error
from deqir.operators.function import from_function
from deqir.operators.matrix import MatrixOperator


def as_operator(thing: Any, shape: Shape | None = None) -> LinearOperator:
    """``thing`` as an operator for images of ``shape`` (C, H, W).

    - an operator: itself, fixed to the shape where one is given;
    - a ``deepinv.physics.LinearPhysics``: ``PhysicsOperator``; the shape is needed for stacked or complex
      observations alone;
    - a real 2-D tensor or NumPy array (M, C * H * W): ``MatrixOperator``, decomposed exactly;
    - a SciPy sparse matrix or array, or a ``scipy.sparse.linalg.LinearOperator``, of that shape; observations are
      (B, M), the pseudo-inverse is solved for. A ``LinearOperator`` runs on the CPU and needs ``rmatvec``;
    - a function on batches: ``from_function``.

    Raises OptionError for anything else or where the shape is missing, ShapeError where it does not fit.
    """
    if isinstance(thing, LinearOperator):
        return thing if shape is None else thing.at(image_shape_or_error(shape))
    if _comes_from(thing, "deepinv.physics"):
        from deqir.operators.physics import physics_operator

        return physics_operator(thing, shape)
    described = _description(thing)
    if shape is None:
        raise OptionError(f"{described} does not tell the shape of its images; use as_operator(it, (C, H, W))")
    shape = image_shape_or_error(shape)
    if isinstance(thing, (Tensor, np.ndarray)):
        return MatrixOperator(thing, shape)
    if _comes_from(thing, "scipy.sparse"):
        from deqir.operators.scipy_matrix import scipy_operator

        return scipy_operator(thing, shape)
    return from_function(thing, shape)


def _description(thing: Any) -> str:
    if isinstance(thing, (Tensor, np.ndarray)) or _comes_from(thing, "scipy.sparse"):
        return "a matrix"
    if callable(thing):
        return "a function"
    raise OptionError(
        f"{type(thing).__name__} is no operator; give a deqir operator, a deepinv LinearPhysics, a matrix, a SciPy "
        "sparse matrix or LinearOperator, or a function of a batch of images"
    )


def _comes_from(thing: Any, package: str) -> bool:
    """Whether ``thing`` is of a class defined in ``package``, which need not be imported for that."""
    return any(kind.__module__.startswith(package) for kind in type(thing).__mro__)
