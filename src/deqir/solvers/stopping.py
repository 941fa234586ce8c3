"""How far the last state still is from the serial answer, judged by how the solve converges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SLOWEST = 0.85
"""The convergence factor per sweep beyond which no extrapolation is trusted."""

ELSEWHERE = 0.1
"""The share of the largest residual of any state that is taken to reach the last one still."""

ELSEWHERE_MIXED = 0.5
"""The same where iterates are mixed: that can make the last residual vanish by chance while other states move."""


def estimate_error(residuals: Sequence[Tensor], largest: Tensor, mixed: bool = False) -> Tensor:
    """The estimated root mean square error of the last state after the newest sweep, (B,).

    ``residuals`` are the root mean square residuals (B,) of the last state after every sweep, ``largest`` (B,) the
    newest largest of any state. The first residual tells of the start and is left out. A residual r that shrinks by a
    factor q per sweep leaves an error of r q / (1 - q); q is the larger of the last two factors, at most ``SLOWEST``,
    and less than r is never promised, nor less than a share of ``largest``, a larger one for solvers that mix their
    iterates (``mixed``). Infinite before the third sweep and where a residual is not finite. ``benchmarks/solvers.py``
    and ``benchmarks/stopping.py`` count how often the estimate holds.
    """
    if len(residuals) < 3:
        return torch.full_like(largest, torch.inf)
    newest = torch.stack(list(residuals[1:][-3:]))
    factors = newest[1:] / newest[:-1].clamp(min=torch.finfo(newest.dtype).tiny)
    slowest = factors.amax(0).clamp(max=SLOWEST)
    error = newest[-1] * (slowest / (1 - slowest)).clamp(min=1)
    error = torch.maximum(error, (ELSEWHERE_MIXED if mixed else ELSEWHERE) * largest)
    return torch.where(error.isfinite() & newest.isfinite().all(0), error, torch.inf)
