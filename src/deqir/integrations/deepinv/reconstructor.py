"""The equilibrium restorer as a deepinv reconstructor."""

from __future__ import annotations

from typing import Any

import torch
from deepinv.models import Reconstructor
from deepinv.physics import GaussianNoise, LinearPhysics, NoiseModel, StackedPhysics, ZeroNoise
from deepinv.utils import TensorList
from torch import Tensor

from deqir.errors import OptionError
from deqir.operators import LinearOperator
from deqir.operators.packing import Packing
from deqir.operators.physics import physics_operator
from deqir.priors import Denoiser, load_prior
from deqir.restoration import Restorer
from deqir.results import Restoration


class DeqIR(Reconstructor):  # type: ignore[misc]
    """``model(y, physics)``: restores a deepinv observation with a diffusion prior, all timesteps at once.

    ``prior`` is a deqir prior (None: the built-in one); ``options`` are those of ``Restorer``: steps, eta, solver,
    tolerance and so on. It runs on the device of ``y``. ``noise``, the standard deviation of the observation's
    Gaussian noise, is read from ``physics.noise_model`` where it is None. ``value_range`` holds the image values that
    stand for the prior's black and white: (0, 1) as everywhere in deepinv, or (-1, 1), say, for the two channels of
    a complex MRI image. ``seed`` s gives the images of a batch the seeds s, s + 1, ...; ``restoration`` keeps the
    last result, in units of [0, 1]: status, sweeps, network evaluations, residuals.

    Raises OptionError for a noise model that is not Gaussian or whose level differs within the batch, and what
    ``physics_operator`` and ``Restorer`` raise.
    """

    def __init__(
        self,
        prior: Denoiser | None = None,
        *,
        noise: float | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        low, high = value_range
        if not low < high:
            raise OptionError(f"value_range is {value_range}; give (black, white) with black below white")
        self.prior = load_prior() if prior is None else prior
        self.noise = noise
        self.value_range = (float(low), float(high))
        self.seed = seed
        self.options = options
        self.restoration: Restoration | None = None

    def forward(self, y: Tensor | TensorList, physics: LinearPhysics, **kwargs: Any) -> Tensor:
        """The restored images (B, C, H, W) in ``value_range``, not clipped; further arguments are ignored."""
        packing = Packing.of(y)
        observed = packing.pack(y)
        operator = physics_operator(physics, observation=y)
        operator = operator.at(operator.image_shape(tuple(observed.shape[1:])))
        low, high = self.value_range
        noise = _gaussian_level(physics) if self.noise is None else self.noise
        restorer = Restorer(self.prior, operator, noise=noise / (high - low), device=observed.device, **self.options)
        unit = self._in_unit_range(observed, operator)
        self.restoration = restorer.restore(unit, seed=self.seed)
        image: Tensor = low + (high - low) * self.restoration.image
        return image.to(observed.dtype)

    def _in_unit_range(self, y: Tensor, operator: LinearOperator) -> Tensor:
        """The observation that the image, brought to [0, 1], would have given."""
        low, high = self.value_range
        if (low, high) == (0, 1):
            return y
        shape = operator.image_shape(tuple(y.shape[1:]))
        black = operator.forward(y.new_full((len(y), *shape), low))
        return (y - black) / (high - low)


def _gaussian_level(physics: LinearPhysics) -> float:
    """The standard deviation of the noise that ``physics`` adds; zero where it adds none."""
    parts = physics.physics_list if isinstance(physics, StackedPhysics) else [physics]
    levels = torch.cat([_levels(part.noise_model) for part in parts])
    if float(levels.max() - levels.min()) > 1e-6 * float(levels.max()):
        raise OptionError(
            f"the noise levels of the observation go from {float(levels.min()):g} to {float(levels.max()):g}; give "
            "images of one level at a time, or state noise="
        )
    return float(levels.max())


def _levels(model: NoiseModel) -> Tensor:
    if isinstance(model, ZeroNoise):
        return torch.zeros(1)
    if isinstance(model, GaussianNoise):
        levels: Tensor = model.sigma.flatten().cpu()
        return levels
    raise OptionError(f"the noise model {type(model).__name__} is not Gaussian; state the nearest noise= yourself")
