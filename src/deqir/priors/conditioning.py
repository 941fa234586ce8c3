"""Class-conditional priors: a chosen label, with classifier-free guidance or without."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deqir.errors import OptionError
from deqir.priors.denoiser import Denoiser, DiffusersDenoiser
from deqir.priors.networks import EXTRAS
from deqir.schedule import NoiseSchedule


@dataclass(frozen=True, eq=False)
class LabelledDenoiser:
    """A class-conditional prior told one class for all images.

    ``guidance`` w mixes the predictions with and without the class, ``e_null + w (e_label - e_null)``
    (arXiv 2207.12598), at twice the network's cost; None and 1 are the class alone.
    """

    denoiser: DiffusersDenoiser
    label: int
    guidance: float | None = None
    null_label: int | None = None

    @property
    def schedule(self) -> NoiseSchedule:
        return self.denoiser.schedule

    @property
    def channels(self) -> int:
        return self.denoiser.channels

    @property
    def name(self) -> str:
        weight = "" if self.guidance is None else f", guidance {self.guidance:g}"
        return f"{self.denoiser.name} (class {self.label}{weight})"

    def to(self, device: torch.device, dtype: torch.dtype) -> LabelledDenoiser:
        """This denoiser on ``device``, computing in ``dtype``."""
        return replace(self, denoiser=self.denoiser.to(device, dtype))

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The predicted noise (N, C, H, W) in ``x`` at ``timesteps`` (N,)."""
        conditional = self.denoiser.predict(x, timesteps, self.label)
        if self.guidance in (None, 1):
            return conditional
        unconditional = self.denoiser.predict(x, timesteps, self.null_label)
        return unconditional + self.guidance * (conditional - unconditional)


def with_label(
    prior: Denoiser, label: int, guidance: float | None = None, null_label: int | None = None
) -> LabelledDenoiser:
    """``prior`` for images of class ``label``, with classifier-free ``guidance`` where it is not None.

    ``null_label``: the class that stands for none; None: the one that the prior's configuration names, if any.

    Raises OptionError where the prior is not class-conditional, has no such class, or has no class that stands for
    none, without which there is nothing to guide against.
    """
    if not isinstance(prior, DiffusersDenoiser) or prior.classes is None:
        raise OptionError(f"the prior {prior.name} is not class-conditional; leave label out")
    if not isinstance(label, int) or not 0 <= label < prior.classes:
        raise OptionError(f"label is {label!r}; choose one of the classes 0 to {prior.classes - 1} of {prior.name}")
    if null_label is not None and not 0 <= null_label < prior.classes:
        raise OptionError(f"null_label is {null_label}; choose one of 0 to {prior.classes - 1} of {prior.name}")
    if null_label is None:
        null_label = (prior.model.config.get(EXTRAS) or {}).get("null_label")
    if guidance is not None:
        if not math.isfinite(guidance) or guidance < 0:
            raise OptionError(f"guidance is {guidance}; choose a number of at least 0 (1: the class alone)")
        if null_label is None:
            raise OptionError(
                f"the prior {prior.name} has no class that stands for none, so guidance cannot be computed; "
                "leave guidance out, or give null_label if you know that it was trained with one"
            )
    return LabelledDenoiser(prior, label, guidance, null_label)


def require_label(prior: Denoiser) -> None:
    """Raise OptionError where ``prior`` is class-conditional and was told no class."""
    if isinstance(prior, DiffusersDenoiser) and prior.classes is not None:
        raise OptionError(
            f"the prior {prior.name} is conditional on {prior.classes} classes; choose one with label, "
            f"0 to {prior.classes - 1}"
        )
