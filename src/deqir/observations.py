"""Observations on disk: a measurement together with what is needed to restore from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqir.errors import ImageReadError, NonFiniteError, OptionError, ShapeError
from deqir.images import (
    METADATA_KEY,
    Attachments,
    Photo,
    StrPath,
    atomic_write,
    existing_file,
    forbidden,
    metadata_to_json,
    read_metadata,
    read_photo,
    write_image,
)

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MOST_AXES = 8
_TENSOR_KEY = "value"


@dataclass(frozen=True, eq=False)
class Observation:
    """What was measured, and its metadata: how it was made (operator, noise level, seed), as plain JSON values.

    ``attachments``: what else a photo's file holds beside its colours; ``write_observation`` leaves it out.
    """

    value: Tensor
    metadata: dict[str, Any] = field(default_factory=dict)
    attachments: Attachments = field(default_factory=Attachments)


def needs_safetensors(value: Tensor) -> bool:
    """True where ``value`` is not an image, (C, H, W) within [0, 1] with C = 1 or 3, and so does not fit into a PNG."""
    is_image = value.ndim == 3 and value.shape[0] in (1, 3) and value.numel() > 0
    return not (is_image and bool(((value >= 0) & (value <= 1)).all()))


def write_observation(path: StrPath, observation: Observation) -> None:
    """Write a 16-bit .png (rounded to 1/65535), or a .safetensors file that keeps any float tensor exactly."""
    path, value = Path(path), observation.value
    _check_value(value)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        atomic_write(path, _to_safetensors(observation))
    elif suffix != ".png":
        raise OptionError(f"{path} has no suffix of an observation; use .png for images or .safetensors for any tensor")
    elif needs_safetensors(value):
        raise OptionError(
            f"the observation of shape {tuple(value.shape)} is not an image within 0 to 1 and does not fit "
            f"into {path}; use a name that ends in .safetensors"
        )
    else:
        write_image(path, value, bits=16, metadata=observation.metadata)


def read_observation(path: StrPath, frame: int = 0) -> Observation:
    """Read what ``write_observation`` wrote, or a frame of any image, whose metadata is then empty."""
    path = Path(path)
    is_tensor = path.suffix.lower() == ".safetensors"
    photo = Photo(_read_safetensors(path)) if is_tensor else read_photo(path, frame)
    return Observation(photo.image, read_metadata(path) or {}, photo.attachments)


def _check_value(value: Tensor) -> None:
    if not value.is_floating_point() or value.numel() == 0:
        raise ShapeError(
            f"the observation has shape {tuple(value.shape)} and type {value.dtype}; "
            "give a float tensor with values in it"
        )
    if not value.isfinite().all():
        raise NonFiniteError("the observation holds NaN or infinite values; it was not written, check how it was made")


def _to_safetensors(observation: Observation) -> bytes:
    from safetensors.torch import save

    value = observation.value.detach().cpu().contiguous().clone()
    return save({_TENSOR_KEY: value}, metadata={METADATA_KEY: metadata_to_json(observation.metadata)})


def _read_safetensors(path: Path) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(existing_file(path))
    except PermissionError as error:
        raise forbidden(path) from error
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise ImageReadError(f"{path} is not a readable safetensors file; it may be cut off, write it again") from error
    value = tensors.get(_TENSOR_KEY)
    if value is None or value.dtype not in FLOATS or value.numel() == 0:
        raise ImageReadError(f"{path} holds no float tensor named {_TENSOR_KEY!r}; name a file written by deqir")
    if value.ndim > MOST_AXES:
        raise ImageReadError(f"{path} holds a tensor of {value.ndim} axes; write one of (C, H, W) or (measurements,)")
    if not value.isfinite().all():
        raise ImageReadError(f"{path} holds NaN or infinite values; write the observation again")
    return value
