"""How blurred a photo is: the width of a Gaussian blur, from the edges of the photo alone."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deqir.errors import OptionError, ShapeError
from deqir.operators.colorization import NAMED_WEIGHTS

Plane = NDArray[np.float64]
NARROW, WIDE = 1.0, 2.0
"""Standard deviations, in pixels, of the two Gaussians whose gradients are compared."""
STRONGEST = 0.3
"""The share of the edge pixels, those of the strongest gradient, that is looked at."""
NOISE_MARGIN, WEAKEST = 8.0, 0.02
"""Edges have a gradient of this many times that of the noise, and of this share of the strongest."""
FEWEST_EDGES = 30


def estimate_blur(photo: Tensor, noise: float = 0.0) -> float:
    """The standard deviation in pixels of the Gaussian blur of ``photo`` (C, H, W) in [0, 1] with ``noise``.

    An edge of width w, smoothed by a Gaussian of width s, has a gradient that goes as ``1 / sqrt(w^2 + s^2)``; so the
    ratio of its gradients at two widths s tells w (Zhuo and Sim, Pattern Recognition 2011; two smoothings instead of
    one stand noise better). The photo's is the median of the squares over its strong edges. Edges that are soft in the
    scene make it too large, fine detail too small. Raises ShapeError for another shape, OptionError where there are
    hardly any edges above the noise.
    """
    if photo.ndim != 3 or photo.shape[0] not in (1, 3) or min(photo.shape[1:]) < 16:
        raise ShapeError(f"the photo has shape {tuple(photo.shape)}; give (1 or 3, H, W) of at least 16 x 16 pixels")
    image = photo.detach().cpu().double()
    weights = image.new_tensor(NAMED_WEIGHTS["luma"] if len(image) == 3 else (1.0,))
    widths = _edge_widths((image * weights.view(-1, 1, 1)).sum(0).numpy(), noise)
    if len(widths) < FEWEST_EDGES:
        raise OptionError("the photo has hardly any edges above its noise, so its blur is not known; give blur_width")
    return sqrt(max(0.0, float(np.median(widths))))


def _edge_widths(luma: Plane, noise: float) -> Plane:
    """Squared widths of the strong edges of ``luma`` (H, W)."""
    narrow_rows, narrow_columns = _gradient(luma, NARROW)
    narrow, wide = np.hypot(narrow_rows, narrow_columns), np.hypot(*_gradient(luma, WIDE))
    floor = max(NOISE_MARGIN * noise / (sqrt(8 * np.pi) * NARROW**2), WEAKEST * float(narrow.max()), 1e-9)
    edges = _ridge(narrow, narrow_rows, narrow_columns) & (narrow > floor)
    border = round(3 * WIDE)
    edges[:border], edges[-border:], edges[:, :border], edges[:, -border:] = False, False, False, False
    if not edges.any():
        return np.empty(0)
    edges &= narrow >= np.quantile(narrow[edges], 1 - STRONGEST)
    ratio = np.maximum(narrow[edges] / wide[edges], 1.01) ** 2
    return np.asarray((WIDE**2 - ratio * NARROW**2) / (ratio - 1))


def _gradient(luma: Plane, width: float) -> tuple[Plane, Plane]:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(luma, width, order=(1, 0)), gaussian_filter(luma, width, order=(0, 1))


def _ridge(magnitude: Plane, rows: Plane, columns: Plane) -> NDArray[np.bool_]:
    """Where ``magnitude`` is largest along the nearer axis of the gradient."""
    vertical = np.abs(rows) > np.abs(columns)
    above, below = np.roll(magnitude, 1, 0), np.roll(magnitude, -1, 0)
    left, right = np.roll(magnitude, 1, 1), np.roll(magnitude, -1, 1)
    down = (magnitude >= above) & (magnitude > below)
    across = (magnitude >= left) & (magnitude > right)
    found: NDArray[np.bool_] = np.where(vertical, down, across)
    return found
