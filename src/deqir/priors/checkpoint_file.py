"""Reading checkpoint files without running code in them, and finding the state dict inside."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqir.errors import UnsupportedCheckpointError

State = Mapping[str, Tensor]
"""A state dict: tensors by name."""

DEEPEST = 4
"""Containers inside containers that are searched for state dicts."""


def read_checkpoint(file: Path) -> Any:
    """What ``file`` holds, on the CPU: safetensors, or anything of ``torch.save`` made of tensors and plain values.

    Pickles are read with ``weights_only``: one that refers to other objects could run code and is refused. Raises
    UnsupportedCheckpointError.
    """
    from safetensors.torch import load_file

    try:
        if _is_safetensors(file):
            return load_file(file)
        _refuse_packed(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # unpicklers raise nearly anything on damaged bytes
        raise UnsupportedCheckpointError(f"{file} cannot be read safely: {_reason(error)}") from None


def _is_safetensors(file: Path) -> bool:
    """A safetensors file starts with the length of its JSON header, then the header."""
    if file.suffix == ".safetensors":
        return True
    with file.open("rb") as opened:
        return opened.read(9)[8:] == b"{"


def _refuse_packed(file: Path) -> None:
    """Raise ValueError for a zip whose parts are larger than the file itself: ``torch.save`` compresses nothing."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > file.stat().st_size:
            raise ValueError(f"its parts unpack to {size} bytes, more than the file has; torch.save compresses nothing")


def _reason(error: Exception) -> str:
    """What went wrong and what to do; torch's own advice to turn the safety off is left out."""
    text = str(error)
    culprit = re.search(r"GLOBAL (\S+)", text)
    if culprit:
        return (
            f"it refers to {culprit[1]}, which could run code, so nothing was loaded; "
            "save its tensors alone, as a state dict"
        )
    if isinstance(error, (pickle.UnpicklingError, LookupError)) or not text.strip():
        return "it is no file of torch.save or safetensors; download or save it again"
    return f"{text.splitlines()[0].split('. ')[0][:100]}; download or save it again"


def state_dicts(content: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Every state dict inside ``content``, with the names on the way to it joined by dots.

    Checkpoints wrap them as ``{"state_dict": ...}``, ``{"model": ..., "ema": ...}`` or a list of states.
    """
    if isinstance(content, Mapping):
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            yield path, tensors
        inner: Any = content.items()
    elif isinstance(content, (list, tuple)):
        inner = enumerate(content)
    else:
        return
    if depth < DEEPEST:
        for key, value in inner:
            yield from state_dicts(value, f"{path}.{key}" if path else str(key), depth + 1)


def network_state(file: Path, content: Any, anchors: tuple[str, ...], prefer_ema: bool) -> tuple[str, State]:
    """The state dict in ``content`` that has one of the tensors ``anchors``: (that anchor, its tensors by plain name).

    A prefix before the anchor ("module.", "model.") is cut off; tensors without it are left out where they belong to
    another copy of the network or are the schedule's buffers, and stay, to be refused, where they are neither. Of
    several copies the averaged one ("ema" in its path or prefix, or the last of a list, as the DDIM code saves it) is
    taken if ``prefer_ema``, else the first. Raises UnsupportedCheckpointError where there is none.
    """
    copies = [copy for path, state in state_dicts(content) for copy in _copies(path, state, anchors)]
    if not copies:
        found = next((sorted(state) for _, state in state_dicts(content)), [])
        holds = f"its tensors begin with {', '.join(found[:3])}" if found else "it holds no state dict"
        raise UnsupportedCheckpointError(
            f"{file} is no model that deqir knows ({holds}); give a guided-diffusion or DDPM U-Net or diffusers folder"
        )
    marked = [number for number, (path, _, _) in enumerate(copies) if "ema" in path.lower()]
    if not marked and isinstance(content, (list, tuple)):
        marked = [len(copies) - 1]
    plain = [number for number in range(len(copies)) if number not in marked]
    preferred = marked + plain if prefer_ema else plain + marked
    _, anchor, state = copies[preferred[0]]
    return anchor, state


def _copies(path: str, state: State, anchors: tuple[str, ...]) -> Iterator[tuple[str, str, State]]:
    """(path, anchor, tensors) of every network in one flat state dict."""
    found = [(key.removesuffix(anchor), anchor) for key in state for anchor in anchors if key.endswith(anchor)]
    prefixes = {prefix for prefix, _ in found}
    for prefix, anchor in found:
        if prefix and not prefix.endswith("."):
            continue
        others = tuple(other for other in prefixes if other and other != prefix)
        kept = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if not (others and key.startswith(others)) and not _is_schedule_buffer(key)
        }
        yield f"{path}.{prefix}", anchor, kept


def _is_schedule_buffer(key: str) -> bool:
    words = ("betas", "alphas", "posterior_", "num_updates", "decay", "log_one_minus", "sqrt_", "logvar")
    return key.startswith(words)
