"""A diffusers folder as a prior: strict about its tensors, safe about pickles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deqir.errors import UnsupportedCheckpointError
from deqir.priors.checkpoint_file import State, read_checkpoint
from deqir.priors.denoiser import DiffusersDenoiser
from deqir.priors.networks import EXTRAS, build_network, load_weights
from deqir.priors.options import CheckpointOptions
from deqir.priors.scheduler_config import VARIANCE_EXPLODING, read_exploding_schedule, read_schedule
from deqir.priors.score import ScoreDenoiser

if TYPE_CHECKING:
    from diffusers import UNet2DModel

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
OLD_ATTENTION_NAMES = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
"""What diffusers called the projections until version 0.17; the published google/ddpm-* files still do."""
TAKEN = ("schedule", "diffusion_steps", "prediction", "null_label", "image_size", "max_parameters")


def load_diffusers_folder(
    folder: Path, name: str | None = None, options: CheckpointOptions | None = None
) -> DiffusersDenoiser | ScoreDenoiser:
    """The prior in ``folder``, a diffusers ``UNet2DModel`` with its scheduler, in float32 on the CPU.

    ``folder`` is a pipeline (``unet/`` and ``scheduler/`` inside) or the model itself (``config.json``, the weights
    and ``scheduler_config.json``). Raises UnsupportedCheckpointError, naming what is missing or unexpected.
    """
    options = options or CheckpointOptions()
    options.refuse_others(TAKEN, f"the diffusers folder {folder}")
    if not folder.is_dir():
        raise UnsupportedCheckpointError(
            f"prior {folder} is not a folder; give a diffusers folder with config.json and {WEIGHT_FILES[0]}"
        )
    _refuse_latent_pipeline(folder)
    model_folder = folder / "unet" if (folder / "unet").is_dir() else folder
    config, source = _checked_config(model_folder, options), str(model_folder / "config.json")
    model = build_network(config, source, options.max_parameters)
    load_weights(model, _with_current_names(_read_weights(model_folder)), str(model_folder))
    return _with_schedule(model, folder, name or folder.name, options)


def _with_schedule(
    model: UNet2DModel, folder: Path, name: str, options: CheckpointOptions
) -> DiffusersDenoiser | ScoreDenoiser:
    """The prior of ``model`` with the schedule of the options, else of the folder's scheduler."""
    if options.schedule is not None or options.diffusion_steps is not None:
        return DiffusersDenoiser(model, options.chosen_schedule("linear", 1000), options.prediction or "epsilon", name)
    file = folder / ("scheduler" if (folder / "scheduler").is_dir() else "") / "scheduler_config.json"
    scheduler = read_json(file)
    if scheduler.get("_class_name") == VARIANCE_EXPLODING:
        return ScoreDenoiser(model, read_exploding_schedule(scheduler, file), name)
    if model.config["time_embedding_type"] == "fourier":
        raise UnsupportedCheckpointError(
            f"prior {folder} is a continuous score model, but its scheduler is {scheduler.get('_class_name')}; "
            f"deqir knows those of {VARIANCE_EXPLODING}"
        )
    schedule, prediction = read_schedule(scheduler, file)
    return DiffusersDenoiser(model, schedule, options.prediction or prediction, name)


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``; raises UnsupportedCheckpointError where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnsupportedCheckpointError(
            f"prior folder {file.parent} has no {file.name}; give a folder saved by diffusers"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UnsupportedCheckpointError(f"{file} is not readable JSON ({error}); save the prior again") from None
    if not isinstance(content, dict):
        raise UnsupportedCheckpointError(f"{file} holds no JSON object; save the prior again")
    return content


def _refuse_latent_pipeline(folder: Path) -> None:
    index = folder / "model_index.json"
    parts = read_json(index) if index.exists() else {}
    others = [part for part in parts if not part.startswith("_") and part not in ("unet", "scheduler")]
    if others:
        raise UnsupportedCheckpointError(
            f"prior {folder} is a pipeline with {', '.join(others)}; deqir takes models of pixels, unet and scheduler"
        )


def _checked_config(folder: Path, options: CheckpointOptions) -> dict[str, Any]:
    """The network's configuration; refused where it is no unconditional or class-conditional pixel model."""
    config = read_json(folder / "config.json")
    kind = config.get("_class_name", "UNet2DModel")
    if kind not in ("UNet2DModel", "UNetUnconditionalModel"):
        raise UnsupportedCheckpointError(
            f"prior {folder} is a {kind}; deqir takes the unconditional pixel model UNet2DModel"
        )
    config["_class_name"] = "UNet2DModel"
    inputs, outputs = config.get("in_channels", 3), config.get("out_channels", 3)
    if outputs not in (inputs, 2 * inputs):
        raise UnsupportedCheckpointError(
            f"prior {folder} takes {inputs} channels and returns {outputs}; "
            "give a model that takes the noisy image alone"
        )
    if config.get("class_embed_type") is not None:
        raise UnsupportedCheckpointError(
            f"prior {folder} is conditional on a {config['class_embed_type']}; deqir takes class numbers alone"
        )
    if options.image_size is not None:
        config["sample_size"] = options.image_size
    if options.null_label is not None:
        config[EXTRAS] = dict(config.get(EXTRAS) or {}) | {"null_label": options.null_label}
    return config


def _read_weights(folder: Path) -> State:
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).exists()), None)
    if file is None:
        raise UnsupportedCheckpointError(f"prior folder {folder} has no weights; put {WEIGHT_FILES[0]} there")
    state = read_checkpoint(file)
    if not isinstance(state, dict):
        raise UnsupportedCheckpointError(f"{file} holds no state dict; save the prior again")
    return state


def _with_current_names(state: State) -> State:
    renamed = {}
    for key, value in state.items():
        for old, new in OLD_ATTENTION_NAMES.items():
            key = key.replace(old, new)
        renamed[key] = value
    return renamed
