"""The built-in prior, and the one function that loads any prior."""

from __future__ import annotations

import os
from pathlib import Path

from deqir.priors.denoiser import Denoiser
from deqir.priors.loading import load_diffusers_folder

BUILTIN_NAME = "builtin"
BUILTIN_FOLDER = Path(__file__).with_name("builtin")


def load_prior(source: str | os.PathLike[str] | None = None) -> Denoiser:
    """Load a prior: the built-in one (``None`` or ``"builtin"``), or a diffusers folder.

    Raises UnsupportedCheckpointError where the folder holds no prior that deqir can load.
    """
    if source is None or source == BUILTIN_NAME:
        return load_diffusers_folder(BUILTIN_FOLDER, BUILTIN_NAME)
    return load_diffusers_folder(Path(source).expanduser())
