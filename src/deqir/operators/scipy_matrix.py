"""Operators from SciPy: sparse matrices, and linear operators that run on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.operators.base import Shape
from deqir.operators.function import FunctionOperator

ArrayMap = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def scipy_operator(matrix: Any, shape: Shape) -> FunctionOperator:
    """The operator ``y = matrix @ x`` of a SciPy sparse matrix or LinearOperator for images of ``shape`` (C, H, W).

    Observations are (B, M). Raises ShapeError where the matrix does not fit, OptionError where it is complex or its
    transpose is unknown, NonFiniteError where a sparse one holds NaN.
    """
    from scipy.sparse import issparse

    size = shape[0] * shape[1] * shape[2]
    if len(matrix.shape) != 2 or matrix.shape[1] != size:
        raise ShapeError(
            f"the matrix has shape {matrix.shape}; give one with {size} columns, the values of an image {shape}"
        )
    if matrix.dtype is not None and np.dtype(matrix.dtype).kind == "c":
        raise OptionError("the matrix is complex; stack its real and imaginary rows")
    forward, transpose = _sparse_maps(matrix) if issparse(matrix) else _host_maps(matrix)
    measured = (int(matrix.shape[0]),)
    return FunctionOperator(
        lambda x: forward(x.flatten(1)), shape, measured, lambda y: transpose(y).reshape(len(y), *shape)
    )


@dataclass(frozen=True, eq=False)
class _SparseMap:
    """Rows (B, n) to rows (B, m) by a sparse matrix, moved once to each dtype and device."""

    matrix: Tensor
    _moved: dict[tuple[torch.dtype, torch.device], Tensor] = field(default_factory=dict)

    def __call__(self, rows: Tensor) -> Tensor:
        key = (rows.dtype, rows.device)
        if key not in self._moved:
            with torch.inference_mode(False):
                self._moved[key] = self.matrix.to(rows.dtype).to(rows.device)
        product: Tensor = torch.sparse.mm(self._moved[key], rows.T)
        return product.T


def _sparse_maps(matrix: Any) -> tuple[_SparseMap, _SparseMap]:
    entries = matrix.tocoo()
    values = torch.from_numpy(np.asarray(entries.data, dtype=np.float64).copy())
    if not bool(values.isfinite().all()):
        raise NonFiniteError("the matrix holds NaN or infinite values; give finite ones")
    index = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    with torch.inference_mode(False):
        own = torch.sparse_coo_tensor(index, values, entries.shape, check_invariants=True).coalesce()
        return _SparseMap(own), _SparseMap(own.T.coalesce())


def _host_maps(matrix: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    try:
        matrix.rmatvec(np.zeros(matrix.shape[0]))
    except (NotImplementedError, TypeError):
        raise OptionError("the SciPy LinearOperator has no rmatvec, the transpose; give it one") from None

    def forward(rows: Tensor) -> Tensor:
        result: Tensor = _HostMap.apply(rows, matrix.matmat, matrix.rmatmat)
        return result

    def transpose(rows: Tensor) -> Tensor:
        result: Tensor = _HostMap.apply(rows, matrix.rmatmat, matrix.matmat)
        return result

    return forward, transpose


class _HostMap(torch.autograd.Function):
    """Rows (B, n) to rows (B, m) by a map of NumPy columns, in float64 on the CPU."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, direct: ArrayMap, transposed: ArrayMap) -> Tensor:
        ctx.transposed = transposed
        return _on_host(rows, direct)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _on_host(gradient, ctx.transposed), None, None


def _on_host(rows: Tensor, function: ArrayMap) -> Tensor:
    columns = rows.detach().to("cpu", torch.float64).numpy().T
    return torch.from_numpy(np.ascontiguousarray(function(columns).T)).to(rows.device).to(rows.dtype)
