"""What a JPEG file says of its own compression, and the error that its quantisation brings."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deqir.images.files import StrPath, opened

Plane = NDArray[np.float64]
BLOCK = 8
LARGEST_STEP = 255
FEWEST = 3
FLATTEST, STEEPEST = 1.0, 2.5
_TO_RGB = ((1.0, 1.0, 1.0), (0.0, -0.344136, 1.772), (1.402, -0.714136, 0.0))
"""What one level of luma, Cb and Cr adds to red, green and blue (JFIF)."""
_STANDARD_SUM, _STANDARD_CORNER = 3688, 118
"""The sums of the luma table of ITU-T T.81, annex K (libjpeg's quality 50), and of its first 3 x 3 steps."""


@dataclass(frozen=True, eq=False)
class JpegQuantization:
    """The quantisation of a JPEG file: its 8 x 8 tables of step sizes in levels of 0..255, luma's first.

    ``noise``: the standard deviation of the error that it brought, over all channels, in units of 0..1.
    """

    tables: tuple[Plane, ...]
    noise: float

    @property
    def quality(self) -> int:
        """The quality setting of libjpeg, 1 to 100, whose luma table is nearest in sum."""
        table = self.tables[0]
        capped = table.max() >= LARGEST_STEP
        share = table[:3, :3].sum() / _STANDARD_CORNER if capped else table.sum() / _STANDARD_SUM
        scale = 100 * float(share)
        quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
        return int(min(max(round(quality), 1), 100))


def read_quantization(path: StrPath) -> JpegQuantization | None:
    """The quantisation of the JPEG file ``path``; None where it is no JPEG file, or of inks (CMYK).

    Within a step of size q the error is uniform, q^2 / 12; but most coefficients are quantised to zero, and then the
    error is what they were. So the coefficients of each of the 64 frequencies are taken for Laplacian (Reininger and
    Gibson, IEEE Trans. Commun. 1983), with the scale that the share of zeros in the file tells, and the error is what
    that distribution makes one expect. What smaller planes of colour lost is not counted. Raises ImageReadError
    for a file that cannot be read.
    """
    with opened(path) as file, Image.open(file) as image:
        if image.format != "JPEG" or image.mode not in ("L", "RGB"):
            return None
        quantization = getattr(image, "quantization", {})
        tables = tuple(np.array(quantization[key], float).reshape(BLOCK, BLOCK) for key in sorted(quantization))
        layers = [layer[1:] for layer in getattr(image, "layer", [])]
        image.draft("YCbCr" if image.mode == "RGB" else "L", image.size)
        image.load()
        if not tables or image.mode not in ("L", "YCbCr"):
            return None
        planes = [np.asarray(plane, float) - 128 for plane in image.split()]
    errors = [
        _error(_reduced(plane, layers, number), tables[min(layers[number][2], len(tables) - 1)])
        for number, plane in enumerate(planes)
    ]
    variance = sum(error * float(np.square(w).mean()) for error, w in zip(errors, _TO_RGB, strict=False))
    return JpegQuantization(tables, sqrt(variance) / 255)


def _reduced(plane: Plane, layers: list[tuple[int, ...]], number: int) -> Plane:
    """A plane at the size at which it is stored: those of colour are often smaller than luma."""
    across, down = layers[0][0] // layers[number][0], layers[0][1] // layers[number][1]
    padded = np.pad(plane, ((0, -plane.shape[0] % down), (0, -plane.shape[1] % across)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // down, down, padded.shape[1] // across, across)
    return np.asarray(blocks.mean((1, 3)))


def _error(plane: Plane, table: Plane) -> float:
    """The expected square error per pixel of ``plane`` (H, W), quantised with ``table``."""
    from scipy.fft import dctn

    height, width = (max(BLOCK, side // BLOCK * BLOCK) for side in plane.shape)
    padded = np.pad(plane, [(0, max(0, BLOCK - side)) for side in plane.shape], mode="edge")[:height, :width]
    blocks = padded.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)
    coefficients = dctn(blocks, axes=(1, 2), norm="ortho")
    others = (np.abs(coefficients) >= table / 2).mean(0)
    return float(np.mean(_laplacian_errors(_scales(others, table, len(blocks)), table)))


def _scales(others: Plane, table: Plane, blocks: int) -> Plane:
    """The Laplacian scale of each frequency, from the share of its coefficients that are not quantised to zero.

    Where these are fewer than three, the scale is that of a power law in the frequency fitted to the rest, but never so
    large that as many as that would have been expected.
    """
    rows, columns = np.mgrid[:BLOCK, :BLOCK]
    radius = np.hypot(rows, columns).clip(0.5)
    told = others * blocks >= FEWEST
    scales = -table / 2 / np.log(others.clip(FEWEST / blocks if blocks > FEWEST else 0.5, 1 - 0.5 / blocks))
    fitted = told & (radius >= 1)
    if fitted.sum() >= FEWEST:
        slope = np.polyfit(np.log(radius[fitted]), np.log(scales[fitted]), 1)[0].clip(-STEEPEST, -FLATTEST)
        level = np.exp(np.mean(np.log(scales[fitted]) - slope * np.log(radius[fitted])))
    else:
        slope = -(STEEPEST + FLATTEST) / 2
        level = np.min((scales * radius**-slope)[radius >= 1])
    return np.asarray(np.where(told, scales, np.minimum(scales, level * radius**slope)))


def _laplacian_errors(scales: Plane, steps: Plane) -> Plane:
    """The mean square error of quantising Laplacian variables: what the zero bin held, and q^2 / 12 in the others."""
    half = steps / 2
    tail = np.exp(-half / scales)
    dead = 2 * scales**2 - tail * (half**2 + 2 * half * scales + 2 * scales**2)
    return np.asarray(dead + tail * steps**2 / 12)
