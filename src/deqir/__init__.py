"""deqir: image restoration with pretrained diffusion models, all timesteps solved at once.

The public names are loaded when first used, so that importing deqir is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deqir.version import __version__

if TYPE_CHECKING:
    from deqir import operators, solvers
    from deqir.adjoints import ImplicitAdjoint, PhantomGradient, UnrolledAdjoint
    from deqir.distributed import ShardedDenoiser
    from deqir.errors import DeqirError
    from deqir.images import read_image, write_image
    from deqir.metrics import psnr, ssim
    from deqir.priors import Denoiser, load_prior
    from deqir.restoration import Restorer
    from deqir.results import Restoration
    from deqir.schedule import NoiseSchedule
    from deqir.tiling import TiledDenoiser

_HOMES = {
    "DeqirError": "errors",
    "Denoiser": "priors",
    "ImplicitAdjoint": "adjoints",
    "NoiseSchedule": "schedule",
    "PhantomGradient": "adjoints",
    "Restoration": "results",
    "Restorer": "restoration",
    "ShardedDenoiser": "distributed",
    "TiledDenoiser": "tiling",
    "UnrolledAdjoint": "adjoints",
    "load_prior": "priors",
    "psnr": "metrics",
    "read_image": "images",
    "ssim": "metrics",
    "write_image": "images",
}
_MODULES = ("operators", "solvers")

__all__ = [
    "Denoiser",
    "DeqirError",
    "ImplicitAdjoint",
    "NoiseSchedule",
    "PhantomGradient",
    "Restoration",
    "Restorer",
    "ShardedDenoiser",
    "TiledDenoiser",
    "UnrolledAdjoint",
    "__version__",
    "load_prior",
    "operators",
    "psnr",
    "read_image",
    "solvers",
    "ssim",
    "write_image",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"deqir.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"deqir.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'deqir' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
