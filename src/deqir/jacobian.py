"""A stand-in for the network's Jacobian in every state: a gain per band of frequency, and a few directions."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from deqir.bands import FrequencyBands
from deqir.precision import finest_dtype
from deqir.secants import Neighbourhood, SecantMemory

CHUNK = 32
"""States whose spectra are held at a time."""


class BandedJacobian:
    """A symmetric model of S Jacobians, one for each of B images: gains of frequency bands, corrected by secants.

    It starts as the Jacobian of the exact denoiser of Gaussian images, see ``gaussian_gains``, and learns from pairs
    of an argument and the Jacobian's response. ``variances`` (S,) are those of the noise in the states,
    ``1 - a_i``; ``gains`` (S, B, bands) stay from 0 to ``cap`` (S, 1, 1), ``1 / sqrt(1 - a_i)``.
    All are float64 where the device has it.
    """

    def __init__(
        self,
        variances: Tensor,
        like: Tensor,
        *,
        bands: int,
        variance: float,
        corner: float,
        decay: float,
        trust: float,
        directions: int,
        ridge: float,
    ):
        self.bands = FrequencyBands.of(like, bands)
        self.variances = variances.to(like.device, finest_dtype(like.device))
        self.cap = (1 / self.variances.sqrt()).view(-1, 1, 1)
        self.corner, self.decay, self.trust = corner, decay, trust
        self.secants = SecantMemory(directions, ridge, Neighbourhood.of(self.variances))
        self.model = self.gaussian_gains(variance).expand(-1, len(like), -1)
        self.gains = self.model
        self.products = torch.zeros_like(self.gains)
        self.squares = torch.zeros_like(self.gains)

    def gaussian_gains(self, variance: float) -> Tensor:
        """The gains of the exact denoiser of Gaussian images of a mean ``variance``, (S, 1, bands)."""
        spectrum = 1 / (self.bands.radius.square() + self.corner**2)
        power = variance / spectrum.mean() * spectrum
        parts = torch.split(self.variances.view(-1, 1, 1), CHUNK)
        return torch.cat([self.bands.mean(v.sqrt() / ((1 - v) * power + v)) for v in parts])[:, None]

    def respond(self, i: int, argument: Tensor) -> Tensor:
        """``J_i d`` for ``argument`` d (B, C, H, W): the bands' gains, and what they miss of remembered directions."""
        modelled, correction = self.bands.filter(argument, self.gains[i]), self.secants.correction(i, argument)
        return modelled if correction is None else modelled + correction

    def learn_pair(
        self, arguments: Tensor, responses: Tensor, weight: Tensor | None = None, kept: Tensor | None = None
    ) -> None:
        """Take in ``responses`` of the Jacobians to ``arguments``, both (S, B, C, H, W), zero where there are none.

        The gains regress on them, older pairs weighing ``decay`` each time, ``weight`` (S, B) scaling the new ones, and
        ``model`` counting as ``trust`` of the mean band. Where ``kept`` (S, B) is false, directions are forgotten.
        """
        pairs = list(zip(torch.split(arguments, CHUNK), torch.split(responses, CHUNK), strict=True))
        products = torch.cat([self.inner_products(d, g) for d, g in pairs])
        squares = torch.cat([self.inner_products(d, d) for d, _ in pairs])
        if weight is not None:
            products, squares = weight[..., None] * products, weight[..., None] * squares
        sound = (products.isfinite() & squares.isfinite()).all(-1, keepdim=True)
        self.products = self.decay * self.products + torch.where(sound, products, 0)
        self.squares = self.decay * self.squares + torch.where(sound, squares, 0)
        prior = self.trust * self.squares.mean(-1, keepdim=True) + 1e-12
        learned = (self.products + prior * self.model) / (self.squares + prior)
        before, self.gains = self.gains, learned.clamp(min=0).minimum(self.cap)
        if self.secants.size:
            missed = responses - self._filtered(arguments, self.gains)
            self.secants.push(arguments, missed, kept, partial(self._filtered, gains=before - self.gains))

    def _filtered(self, images: Tensor, gains: Tensor) -> Tensor:
        """``images`` (S, B, C, H, W) with the bands of each multiplied by ``gains`` (S, B, bands)."""
        parts = zip(torch.split(images, CHUNK), torch.split(gains, CHUNK), strict=True)
        return torch.cat([self.bands.filter(part, gain) for part, gain in parts])

    def inner_products(self, a: Tensor, b: Tensor) -> Tensor:
        """Inner products of two stacks of images (n, B, C, H, W) in every band, (n, B, bands) like ``gains``."""
        first = torch.fft.rfft2(a, norm="ortho")
        second = first if a is b else torch.fft.rfft2(b, norm="ortho")
        return self.bands.sum((first.conj() * second).real.sum(2).to(self.variances.dtype))
