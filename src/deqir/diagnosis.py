"""What is wrong with a photo of unknown history: noise and blur with intervals, and what to do about them."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal

from torch import Tensor

from deqir.blur_estimation import estimate_blur
from deqir.errors import OptionError, ShapeError
from deqir.images import JpegQuantization
from deqir.noise_estimation import estimate_noise

Remedy = Literal["denoise", "deblur", "none"]

TEXTURE = 0.018
"""How much noise the estimate may see in fine texture alone (the largest in photographs without added noise)."""
BLUR_BELOW, BLUR_ABOVE = 0.4, 0.7
"""How far the true width may be below and above its estimate: the extremes over seven crops of five photographs, with
widths of 0 to 3 and noise of 0 and 0.02, none of which is a photograph of the benchmarks (docs/photographs.md)."""
JPEG_LOW, JPEG_HIGH = 0.6, 1.15
"""The same, as factors, for the error that the tables of a JPEG file tell."""
LEAST_BLUR = 0.8
"""Blur below this width, in pixels, is what sharp photos have too."""
LEAST_JPEG = 0.015
"""Errors of JPEG below this level are left alone."""


@dataclass(frozen=True)
class Estimate:
    """A value, and the interval in which the truth is believed to be; ``given``: by the user, not estimated."""

    value: float
    low: float
    high: float
    given: bool = False

    @classmethod
    def of(cls, value: float) -> Estimate:
        """A value that the user gave."""
        return cls(value, value, value, True)


@dataclass(frozen=True)
class Diagnosis:
    """``noise`` (standard deviation, units of 0..1), ``blur`` (width in pixels; None: not known), the ``remedy``.

    ``jpeg_quality``: of a JPEG file. Only what is certain is treated: noise whose whole interval is above zero, blur
    whose whole interval is above that of sharp photos.
    """

    noise: Estimate
    blur: Estimate | None
    jpeg_quality: int | None = None

    @property
    def remedy(self) -> Remedy:
        if self.blur is not None and self.blur.low >= (1e-6 if self.blur.given else LEAST_BLUR):
            return "deblur"
        return "denoise" if self.noise.low > 0 else "none"

    @property
    def sentence(self) -> str:
        """What was assumed and how sure that is, in one or two sentences."""
        source = "" if self.jpeg_quality is None else f"JPEG of quality {self.jpeg_quality}, "
        found = f"{source}noise {_shown(self.noise, 3)}, "
        unknown = "blur unknown (too small, or hardly any edges)"
        found += unknown if self.blur is None else f"blur {_shown(self.blur, 1, ' px')}"
        advice = {
            "none": "not sure that anything is wrong, so the photo is left alone; give noise or blur_width to insist",
            "denoise": "treated as noise alone",
            "deblur": "treated as a Gaussian blur of this width and this noise; other kinds of blur are not recognised",
        }
        return f"{found}: {advice[self.remedy]}"


def diagnose(
    photo: Tensor,
    quantization: JpegQuantization | None = None,
    noise: float | None = None,
    blur_width: float | None = None,
) -> Diagnosis:
    """What is wrong with ``photo`` (C, H, W) in [0, 1]; ``noise`` and ``blur_width`` are taken where they are given.

    The interval of the noise allows for texture that counts as noise; for a JPEG file the error that its tables tell is
    taken where it is larger. That of the blur is from simulation. Raises what the estimates raise.
    """
    level = Estimate.of(noise) if noise is not None else _noise(photo, quantization)
    quality = None if quantization is None else quantization.quality
    if blur_width is not None:
        return Diagnosis(level, Estimate.of(blur_width), quality)
    try:
        width = estimate_blur(photo, level.value)
    except (OptionError, ShapeError):  # hardly any edges, or smaller than the estimate needs
        return Diagnosis(level, None, quality)
    return Diagnosis(level, Estimate(width, max(0.0, width - BLUR_BELOW), width + BLUR_ABOVE), quality)


def _noise(photo: Tensor, quantization: JpegQuantization | None) -> Estimate:
    level = estimate_noise(photo)
    seen = Estimate(level, sqrt(max(0.0, level**2 - TEXTURE**2)), 1.05 * level)
    if quantization is None or quantization.noise <= level:
        return seen
    told = quantization.noise
    return Estimate(told, JPEG_LOW * told if told >= LEAST_JPEG else seen.low, JPEG_HIGH * told)


def _shown(estimate: Estimate, digits: int, unit: str = "") -> str:
    if estimate.given:
        return f"{estimate.value:g}{unit} as given"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f}){unit}"
