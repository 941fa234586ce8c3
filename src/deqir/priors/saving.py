"""Writing a prior as a diffusers pipeline folder with safetensors."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from deqir.errors import OptionError, OutputError
from deqir.priors.denoiser import Denoiser, DiffusersDenoiser
from deqir.priors.scheduler_config import scheduler_arguments


def save_prior(prior: Denoiser, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write ``prior`` to ``folder`` as a diffusers ``DDPMPipeline``; it loads again to the same network and schedule.

    The folder appears whole or not at all. An existing one is refused unless ``overwrite``; then it must be empty or
    hold a model_index.json, so that nothing else is lost. Raises OptionError where the prior is no ``UNet2DModel`` that
    predicts noise, sample or v, OutputError where the folder cannot be written.
    """
    if not isinstance(prior, DiffusersDenoiser):
        raise OptionError(f"the prior {prior.name} is no UNet2DModel with a DDPM schedule; only those can be saved")
    from safetensors import SafetensorError

    target = Path(folder).expanduser()
    _check_target(target, overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as partial:
            whole = Path(partial) / "new"
            _pipeline(prior).save_pretrained(whole, safe_serialization=True)
            if target.exists():
                os.replace(target, Path(partial) / "old")
            os.replace(whole, target)
    except (OSError, SafetensorError) as error:
        cause = (isinstance(error, OSError) and error.strerror) or error
        raise OutputError(f"{target} cannot be written ({cause}); free space, or choose another folder") from None
    return target


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise OutputError(f"{target} exists; choose another folder or add --overwrite")
    if not target.is_dir() or target.is_symlink():
        raise OutputError(f"{target} is no folder; choose another name")
    if any(target.iterdir()) and not (target / "model_index.json").exists():
        raise OutputError(f"{target} holds something else than a saved prior; choose another folder")


def _pipeline(prior: DiffusersDenoiser) -> Any:
    from diffusers import DDPMPipeline, DDPMScheduler

    learned_variance = prior.model.config["out_channels"] == 2 * prior.channels
    scheduler = DDPMScheduler(**scheduler_arguments(prior.schedule, prior.prediction, learned_variance))
    return DDPMPipeline(unet=prior.model, scheduler=scheduler)
