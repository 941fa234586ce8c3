"""deqir in deepinv, and deepinv in deqir. Needs ``pip install "deqir[deepinv]"``."""

from deqir.errors import MissingExtraError

try:
    import deepinv as _deepinv  # noqa: F401
except ModuleNotFoundError:
    raise MissingExtraError(
        'deepinv is not installed, which deqir.integrations.deepinv needs; run pip install "deqir[deepinv]"'
    ) from None

from deqir.integrations.deepinv.denoiser import PriorDenoiser
from deqir.integrations.deepinv.physics import as_physics
from deqir.integrations.deepinv.reconstructor import DeqIR
from deqir.operators.physics import physics_operator

__all__ = ["DeqIR", "PriorDenoiser", "as_physics", "physics_operator"]
