"""Fixed words that options take, for a shell to complete, and a number.

Written out, since loading who knows them takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable

TASKS = ("sr", "inpaint", "colorize", "deblur", "denoise", "cs", "old-photo", "auto")
MADE_TASKS = TASKS[:-1]
MADE_MASKS = ("random", "box", "text", "scratches")
MASKS = (*MADE_MASKS, "detect")
BLURS = ("gaussian", "uniform", "anisotropic", "motion")
BOUNDARIES = ("circular", "reflect", "replicate", "zero")
DOWNSAMPLINGS = ("average", "bicubic")
WEIGHTS = ("mean", "luma")
FADINGS = ("auto", "none")
SOLVERS = ("auto", "serial", "picard", "anderson", "triangular", "preconditioned")
SPACINGS = ("cubic", "quadratic", "leading", "trailing", "uniform", "linspace")
RULES = ("auto", "ddnm", "ddnm+", "diffpir", "ddrm")
DTYPES = ("float32", "float64", "bfloat16", "float16")
DEVICES = ("cpu", "cuda", "mps")
FORMATS = ("png", "jpg", "webp", "tiff")
DEPTHS = ("auto", "8", "16")
SHARDS = ("files", "timesteps")
OPTIMIZERS = ("adam", "lbfgs", "spherical")
VARIABLES = ("initial", "all")
AVERAGE = 0.05


def completed(words: tuple[str, ...]) -> Callable[[str], list[str]]:
    """What completes the beginning of one of ``words``."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete
