"""The record of one run: JSON for what was asked and counted, safetensors for what was seen on the way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqir.errors import RunReadError
from deqir.images import StrPath, atomic_write

FORMAT = "deqir run 2"
JSON_NAME, TENSORS_NAME = "run.json", "run.safetensors"
PICTURES = ("observation", "result", "truth")
OVERLAYS = ("decided", "noise", "spread")


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What a report shows of one image's restoration, in N sweeps over S states.

    ``settings`` is the record of the job with ``shape`` (C, H, W), the figures of the ``overlays`` and, for a parallel
    solve, ``serial_seconds``: the estimated time of the serial chain. ``timesteps`` (S,) int64. ``residuals`` (N, S)
    float32: how far each sweep moved each state, root mean square in grey levels, 0 where it was final or not reached,
    NaN where it overflowed. ``finished`` (N,) counts the final states after each sweep, ``nfe`` (N,) the images handed
    to the network so far, ``seconds`` (N,) is the time since the start. A serial chain has no sweeps: N = 0.

    ``film`` (F, C, h, w) uint8 shows the restored image after F of the sweeps (``film_sweeps``), ``states``
    (K, C, h, w) uint8 K of the final states (``state_numbers``, from 1 to S) and ``estimates`` the clean images that
    the network sees in them. ``pictures`` holds ``observation``, ``result`` and, where it is known, ``truth``,
    (C, h, w) uint8, ``overlays`` the maps that were asked for, (3, h, w) uint8: ``decided``, ``noise`` and ``spread``.
    ``difference`` (h, w) float32 is the mean distance of the result to the truth, or else to what the observation alone
    gives (A+ y), in grey levels.
    """

    settings: dict[str, Any]
    timesteps: Tensor
    residuals: Tensor
    finished: Tensor
    nfe: Tensor
    seconds: Tensor
    film: Tensor
    film_sweeps: Tensor
    states: Tensor
    estimates: Tensor
    state_numbers: Tensor
    pictures: dict[str, Tensor]
    overlays: dict[str, Tensor]
    difference: Tensor

    @property
    def is_parallel(self) -> bool:
        """Whether sweeps over all states made the result, and not the serial chain."""
        return len(self.residuals) > 0


_TENSORS = (
    "timesteps", "residuals", "finished", "nfe", "seconds", "film", "film_sweeps", "states", "estimates",
    "state_numbers", "difference",
)  # fmt: skip

_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("file", "task", "solver", "status"), str),
    **dict.fromkeys(("steps", "sweeps", "nfe"), int),
    **dict.fromkeys(("seconds", "tolerance"), (int, float)),
    "overlays": dict,
}


def write_run(folder: Path, run: RunRecord) -> None:
    """Write ``run.json`` and ``run.safetensors`` into the existing ``folder``, each whole or not at all."""
    from safetensors.torch import save

    tensors = {name: getattr(run, name).contiguous() for name in _TENSORS}
    for group in ("pictures", "overlays"):
        tensors |= {f"{group}.{name}": picture.contiguous() for name, picture in getattr(run, group).items()}
    text = json.dumps({"format": FORMAT, "settings": run.settings}, indent=2, allow_nan=False) + "\n"
    atomic_write(folder / TENSORS_NAME, save(tensors))
    atomic_write(folder / JSON_NAME, text.encode())


def read_run(path: StrPath) -> RunRecord:
    """Read what ``write_run`` wrote; ``path`` is the folder or the JSON file in it. Raises RunReadError."""
    file = Path(path) / JSON_NAME if Path(path).is_dir() else Path(path)
    settings = _read_settings(file)
    tensors = _read_tensors(file.with_name(TENSORS_NAME))
    parts: dict[str, Any] = {name: tensors[name] for name in _TENSORS}
    parts |= {
        group: {name: tensors[f"{group}.{name}"] for name in names if f"{group}.{name}" in tensors}
        for group, names in (("pictures", PICTURES), ("overlays", OVERLAYS))
    }
    run = RunRecord(settings, **parts)
    if not _fits(run):
        raise RunReadError(f"{file.parent} holds a run whose parts do not fit together; restore with --report again")
    return run


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunReadError(f"{file} does not exist; name a folder that deqir restore --report made") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunReadError(f"{file} is not readable JSON ({error}); restore with --report again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunReadError(f"{file} is not a run that this version of deqir wrote; restore with --report again")
    settings = content.get("settings")
    if not isinstance(settings, dict) or not all(isinstance(settings.get(key), _KINDS[key]) for key in _KINDS):
        raise RunReadError(f"{file} lacks settings of the run; restore with --report again")
    return settings


def _read_tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(file)
    except FileNotFoundError:
        raise RunReadError(f"{file} is missing; keep {JSON_NAME} and {TENSORS_NAME} in one folder") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise RunReadError(
            f"{file} is not a readable safetensors file ({error}); restore with --report again"
        ) from None
    missing = [name for name in (*_TENSORS, "pictures.observation", "pictures.result") if name not in tensors]
    if missing:
        raise RunReadError(f"{file} lacks {', '.join(missing)}; restore with --report again")
    return tensors


def _fits(run: RunRecord) -> bool:
    sweeps, steps = len(run.residuals), len(run.timesteps)
    counts = (run.finished, run.nfe, run.seconds)
    pictures = [*run.pictures.values(), *run.overlays.values()]
    shown = (run.film, run.states, run.estimates, *pictures)
    return (
        run.residuals.shape == (sweeps, steps)
        and all(values.shape == (sweeps,) for values in counts)
        and len(run.film) == len(run.film_sweeps)
        and 0 < len(run.states) == len(run.estimates) == len(run.state_numbers)
        and all(images.ndim == 4 for images in (run.film, run.states, run.estimates))
        and all(picture.ndim == 3 and picture.numel() > 0 for picture in pictures)
        and all(images.dtype == torch.uint8 for images in shown)
        and all(images.shape[-3] in (1, 3) for images in shown)
        and run.difference.ndim == 2
        and run.difference.numel() > 0
    )
