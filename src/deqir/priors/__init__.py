"""Priors: pretrained diffusion models as noise predictors."""

from deqir.priors.clipping import ClippedDenoiser
from deqir.priors.default import load_prior
from deqir.priors.denoiser import Denoiser, DiffusersDenoiser
from deqir.priors.loading import load_diffusers_folder

__all__ = ["ClippedDenoiser", "Denoiser", "DiffusersDenoiser", "load_diffusers_folder", "load_prior"]
