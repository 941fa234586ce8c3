"""The one function that loads any prior: detect, build, load strictly."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deqir.errors import OptionError, UnsupportedCheckpointError
from deqir.priors import ddpm, guided_diffusion, guided_layout
from deqir.priors.callables import wrap_callable
from deqir.priors.checkpoint_file import State, network_state, read_checkpoint
from deqir.priors.compilation import compiled
from deqir.priors.conditioning import with_label
from deqir.priors.denoiser import Denoiser, DiffusersDenoiser
from deqir.priors.diffusers_folder import WEIGHT_FILES, load_diffusers_folder
from deqir.priors.hub import fetch, is_hub_id
from deqir.priors.options import CheckpointOptions

BUILTIN_NAME = "builtin"
BUILTIN_FOLDER = Path(__file__).with_name("builtin")

Source = str | os.PathLike[str] | Callable[..., Any] | Denoiser | None

FAMILIES: dict[str, Callable[[State, CheckpointOptions, str, str], DiffusersDenoiser]] = {
    guided_layout.ANCHOR: guided_diffusion.load_guided_diffusion,
    ddpm.ANCHOR: ddpm.load_ddpm,
}
"""Each family of checkpoint files by a tensor that tells it."""


def load_prior(
    source: Source = None,
    *,
    label: int | None = None,
    guidance: float | None = None,
    compile: str | None = None,
    **options: Any,
) -> Denoiser:
    """Load a prior, in float32 on the CPU.

    ``source`` is None or ``"builtin"``; a diffusers folder; a checkpoint file (.pt, .pth, .ckpt, .safetensors) of
    guided-diffusion, improved-diffusion or a PyTorch DDPM; a hub id ``owner/name``, or a file there,
    ``owner/name/file.pt``; a torch module or any callable ``(x, t)``; or a Denoiser, which is returned.
    ``label`` chooses the class of a class-conditional prior, with classifier-free ``guidance`` or without.
    ``compile``: default, reduce-overhead or max-autotune compiles the network (see :func:`deqir.priors.compiled`).
    ``options``: the fields of :class:`deqir.priors.CheckpointOptions`, for what the checkpoint does not tell.

    Raises UnsupportedCheckpointError where the source holds no prior that deqir can load, DownloadError where the hub
    does not give it, OptionError where an option does not fit.
    """
    if label is None and guidance is not None:
        raise OptionError("guidance is given without label; choose the class to guide towards")
    chosen = CheckpointOptions.from_names(options)
    prior = _load(source, chosen)
    if compile is not None:
        prior = compiled(prior, compile)
    return prior if label is None else with_label(prior, label, guidance, chosen.null_label)


def _load(source: Source, options: CheckpointOptions) -> Denoiser:
    if source is None or source == BUILTIN_NAME:
        return load_diffusers_folder(BUILTIN_FOLDER, BUILTIN_NAME, options)
    if isinstance(source, (str, os.PathLike)):
        return _load_path(os.fspath(source), options)
    if isinstance(source, Denoiser):
        options.refuse_others((), f"the denoiser {source.name}, which is ready")
        return source
    if callable(source):
        return wrap_callable(source, options)
    raise OptionError(f"a prior cannot be a {type(source).__name__}; give a path, a hub id, a module or a callable")


def _load_path(text: str, options: CheckpointOptions) -> Denoiser:
    path = Path(text).expanduser()
    if path.is_dir():
        return load_diffusers_folder(path, None, options)
    if path.is_file() and path.name in WEIGHT_FILES and (path.parent / "config.json").exists():
        return load_diffusers_folder(path.parent.parent if path.parent.name == "unet" else path.parent, None, options)
    if path.is_file():
        return load_checkpoint(path, options)
    if not is_hub_id(text):
        raise UnsupportedCheckpointError(
            f"prior {text} is not a folder, a checkpoint file or a hub id; give one of them, or builtin"
        )
    found = fetch(text)
    return load_checkpoint(found, options) if found.is_file() else load_diffusers_folder(found, text, options)


def load_checkpoint(file: Path, options: CheckpointOptions | None = None) -> DiffusersDenoiser:
    """The prior in a checkpoint ``file``, converted to ``UNet2DModel``.

    Raises UnsupportedCheckpointError, naming what is unsafe, unknown, missing or unexpected.
    """
    options = options or CheckpointOptions()
    anchor, state = network_state(file, read_checkpoint(file), tuple(FAMILIES), options.ema)
    return FAMILIES[anchor](state, options, str(file), file.stem)
