"""Priors: pretrained diffusion models as noise predictors."""

from deqir.priors.clipping import ClippedDenoiser
from deqir.priors.compilation import CompiledNetwork, CompileMode, compiled
from deqir.priors.conditioning import LabelledDenoiser, require_label, with_label
from deqir.priors.denoiser import Denoiser, DiffusersDenoiser
from deqir.priors.diffusers_folder import load_diffusers_folder
from deqir.priors.loading import load_checkpoint, load_prior
from deqir.priors.options import CheckpointOptions
from deqir.priors.saving import save_prior

__all__ = [
    "CheckpointOptions",
    "ClippedDenoiser",
    "CompileMode",
    "CompiledNetwork",
    "Denoiser",
    "DiffusersDenoiser",
    "LabelledDenoiser",
    "compiled",
    "load_checkpoint",
    "load_diffusers_folder",
    "load_prior",
    "require_label",
    "save_prior",
    "with_label",
]
