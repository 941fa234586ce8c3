"""A cheap model of the network's Jacobian, learned while the chain is being solved.

Plain sweeps freeze the predicted noise: ``e_i = E_i``. A preconditioned sweep replays the chain with the linearised
prediction ``e_i = E_i + J_i (x_i - X_i)`` instead, X being the states at which E was evaluated. The step stays affine
and causal, so the fixed point and the finite termination are those of the plain sweep; a good J makes it a
quasi-Newton method (DEER, Lim et al. 2024; ELK, Gonzalez et al. 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from deqir.errors import OptionError
from deqir.schedule import NoiseLevels


@dataclass(frozen=True)
class BandedSecant:
    """Settings of the learned Jacobian, which is diagonal in ``bands`` of spatial frequency for every state.

    It starts from the exact denoiser of Gaussian images with power spectrum ``p(f) ~ 1 / (f^2 + corner^2)`` and mean
    ``variance`` (in [-1, 1] units): ``J(f) = sqrt(1 - a) / (a p(f) + 1 - a)``. After every sweep it regresses the
    change of the predictions on the change of the states, per state, image and band; older changes weigh ``decay``
    per sweep, and the Gaussian model counts as ``trust`` of the mean band. Values are clipped to
    ``[0, 1 / sqrt(1 - a)]``, what a denoiser of any prior can have.
    """

    bands: int = 8
    decay: float = 0.5
    trust: float = 0.01
    variance: float = 0.2
    corner: float = 1 / 64

    def __post_init__(self) -> None:
        if self.bands < 1:
            raise OptionError(f"bands is {self.bands}; choose at least 1")
        if not 0 <= self.decay <= 1:
            raise OptionError(f"decay is {self.decay}; choose a number from 0 to 1")
        if not (self.trust > 0 and self.variance > 0 and self.corner > 0):
            raise OptionError("trust, variance and corner of the preconditioner must be above zero")

    def start(self, levels: NoiseLevels, like: Tensor) -> LearnedJacobian:
        """An untaught model for a chain at ``levels`` whose states are like ``like`` (B, C, H, W)."""
        return LearnedJacobian(self, levels, like)


class LearnedJacobian:
    """The Jacobian model of one solve: one gain per state, image and frequency band, (S, B, bands)."""

    def __init__(self, settings: BandedSecant, levels: NoiseLevels, like: Tensor):
        self.settings = settings
        self.size = (like.shape[-2], like.shape[-1])
        radius = _radius(*self.size)
        self.band = _bands(radius, settings.bands).to(like.device)
        noise = (1 - levels.alphas[:-1]).to(like.device).view(-1, 1, 1)
        self.cap = 1 / noise.sqrt()
        spectrum = 1 / (radius.square() + settings.corner**2)
        power = (settings.variance / spectrum.mean() * spectrum).to(like.device)
        exact = noise.sqrt() / ((1 - noise) * power + noise)
        counts = torch.bincount(self.band.flatten(), minlength=settings.bands).clamp(min=1)
        self.model = (self._sum_bands(exact) / counts)[:, None].expand(-1, len(like), -1)
        self.gains = self.model
        self.products = torch.zeros_like(self.gains)
        self.squares = torch.zeros_like(self.gains)
        self.before: tuple[Tensor, Tensor, Tensor] | None = None

    def correction(self, i: int, displacement: Tensor) -> Tensor:
        """``J_i d`` for a displacement d (B, C, H, W) of state i."""
        gain = self.gains[i][:, self.band].unsqueeze(1).to(displacement.dtype)
        corrected: Tensor = torch.fft.irfft2(gain * torch.fft.rfft2(displacement), s=self.size)
        return corrected

    def learn(self, inputs: Tensor, predictions: Tensor, evaluated: Tensor) -> None:
        """Take in what the network made of ``inputs``, both (S, B, C, H, W), where ``evaluated`` (S, B) is true."""
        if self.before is not None:
            old_inputs, old_predictions, old_evaluated = self.before
            self._regress(inputs - old_inputs, predictions - old_predictions, evaluated & old_evaluated)
        self.before = (inputs, predictions, evaluated)

    def _regress(self, moved: Tensor, changed: Tensor, usable: Tensor) -> None:
        settings = self.settings
        moves, changes = (torch.fft.rfft2(part, norm="ortho") for part in (moved, changed))
        products = self._sum_bands((moves.conj() * changes).real.sum(2).double())
        squares = self._sum_bands(moves.abs().square().sum(2).double())
        sound = (usable[..., None] & products.isfinite() & squares.isfinite()).all(-1, keepdim=True)
        self.products = torch.where(sound, settings.decay * self.products + products, self.products)
        self.squares = torch.where(sound, settings.decay * self.squares + squares, self.squares)
        weight = settings.trust * self.squares.mean(-1, keepdim=True) + 1e-12
        learned = (self.products + weight * self.model) / (self.squares + weight)
        self.gains = learned.clamp(min=0).minimum(self.cap)

    def _sum_bands(self, values: Tensor) -> Tensor:
        """Sums over the frequencies (..., H, W // 2 + 1) of every band, (..., bands)."""
        flat = values.flatten(-2)
        index = self.band.flatten().expand(flat.shape)
        return flat.new_zeros(*flat.shape[:-1], self.settings.bands).scatter_add_(-1, index, flat)


def _radius(height: int, width: int) -> Tensor:
    """Spatial frequency in cycles per pixel of every coefficient of a real FFT, (H, W // 2 + 1) float64."""
    down = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    across = torch.fft.rfftfreq(width, dtype=torch.float64)[None]
    radius: Tensor = (down.square() + across.square()).sqrt()
    return radius


def _bands(radius: Tensor, count: int) -> Tensor:
    """The band of every frequency: the mean in band 0, the others by the logarithm of their radius."""
    if count == 1 or radius.numel() == 1:
        return torch.zeros(radius.shape, dtype=torch.long)
    lowest = float(radius[radius > 0].min())
    reach = max(math.log(float(radius.max()) / lowest), 1e-12)
    position = (radius.clamp(min=lowest) / lowest).log() / reach * (count - 1)
    return torch.where(radius > 0, 1 + position.floor().long(), 0).clamp(max=count - 1)
