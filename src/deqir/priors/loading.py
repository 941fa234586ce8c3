"""Loading a prior from a diffusers folder: strict about its tensors, safe about pickles."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from deqir.errors import UnsupportedCheckpointError
from deqir.priors.denoiser import DiffusersDenoiser, Prediction
from deqir.schedule import NoiseSchedule

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def load_diffusers_folder(folder: Path, name: str | None = None) -> DiffusersDenoiser:
    """The prior in ``folder``, a diffusers ``UNet2DModel`` with its scheduler, in float32 on the CPU.

    ``folder`` is a pipeline (``unet/`` and ``scheduler/`` inside) or the model itself (``config.json``, the weights
    and ``scheduler_config.json``). Raises UnsupportedCheckpointError, naming what is missing or unexpected.
    """
    if not folder.is_dir():
        raise UnsupportedCheckpointError(
            f"prior {folder} is not a folder; give a diffusers folder with config.json and {WEIGHT_FILES[0]}"
        )
    model_folder = folder / "unet" if (folder / "unet").is_dir() else folder
    scheduler_file = folder / ("scheduler" if (folder / "scheduler").is_dir() else "") / "scheduler_config.json"
    model = _build(model_folder)
    schedule, prediction = _read_scheduler(scheduler_file)
    return DiffusersDenoiser(model.eval().requires_grad_(False), schedule, prediction, name or folder.name)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnsupportedCheckpointError(
            f"prior folder {file.parent} has no {file.name}; give a folder saved by diffusers"
        ) from None
    except (OSError, ValueError) as error:
        raise UnsupportedCheckpointError(f"{file} is not readable JSON ({error}); save the prior again") from None
    if not isinstance(content, dict):
        raise UnsupportedCheckpointError(f"{file} holds no JSON object; save the prior again")
    return content


def _build(folder: Path) -> Any:
    from diffusers import UNet2DModel

    config = _read_json(folder / "config.json")
    kind = config.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise UnsupportedCheckpointError(
            f"prior {folder} is a {kind}; deqir takes the unconditional pixel model UNet2DModel"
        )
    try:
        model = UNet2DModel.from_config(config)
    except (TypeError, ValueError, KeyError) as error:
        raise UnsupportedCheckpointError(f"{folder / 'config.json'} describes no UNet2DModel: {error}") from None
    _load_strictly(model, _read_weights(folder), folder)
    return model


def _read_weights(folder: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    safe, pickled = (folder / name for name in WEIGHT_FILES)
    try:
        if safe.exists():
            return load_file(safe)
        if pickled.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                state = torch.load(pickled, map_location="cpu", weights_only=True)
            if isinstance(state, dict):
                return state
            raise UnsupportedCheckpointError(f"{pickled} holds no state dict; save the prior again")
    except (SafetensorError, pickle.UnpicklingError, OSError, EOFError, RuntimeError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnsupportedCheckpointError(
            f"the weights in {folder} cannot be read safely ({first_line}); download or save the prior again"
        ) from None
    raise UnsupportedCheckpointError(f"prior folder {folder} has no weights; put {WEIGHT_FILES[0]} there")


def _load_strictly(model: torch.nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    own = model.state_dict()
    missing, unexpected = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    reshaped = sorted(key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape)
    problems = [
        f"{word}: {', '.join(keys[:5])}{' ...' if len(keys) > 5 else ''}"
        for word, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if keys
    ]
    if problems:
        raise UnsupportedCheckpointError(
            f"the weights in {folder} do not fit its config.json ({'; '.join(problems)}); save the prior again"
        )
    model.load_state_dict({key: value.float() for key, value in weights.items()})


def _read_scheduler(file: Path) -> tuple[NoiseSchedule, Prediction]:
    """Noise schedule and prediction type from a diffusers scheduler configuration."""
    config = _read_json(file)
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in get_args(Prediction):
        raise UnsupportedCheckpointError(
            f"{file} names the prediction type {prediction!r}; deqir knows {', '.join(get_args(Prediction))}"
        )
    return NoiseSchedule.from_betas(_betas(config, file)), prediction


def _betas(config: dict[str, Any], file: Path) -> Tensor:
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float64)
    length = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return torch.linspace(start, end, length, dtype=torch.float64)
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, length, dtype=torch.float64).square()
    raise UnsupportedCheckpointError(
        f"{file} names the beta schedule {kind!r}; deqir knows linear, scaled_linear and trained_betas"
    )
