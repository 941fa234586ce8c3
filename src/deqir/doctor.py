"""What this installation consists of, and what is missing."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from deqir.errors import DeqirError
from deqir.version import __version__

PACKAGES = ("torch", "diffusers", "safetensors", "numpy", "pillow", "opencv-python-headless", "scikit-image")
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*?extra\s*==\s*['\"](?P<extra>[\w-]+)")


def examine() -> dict[str, Any]:
    """Versions, devices, memory, extras, the model cache and the built-in prior, as plain JSON values.

    ``problems`` lists in one sentence each what keeps deqir from working.
    """
    prior = _prior()
    return {
        "deqir": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "memory_gb": _memory(),
        "threads": _threads(),
        "extras": dict(sorted(_extras().items())),
        "cache": _cache(),
        "prior": prior,
        "problems": [prior] if prior != "ok" else [],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    """Every device that torch can use, CUDA's with their memory."""
    import torch

    devices: list[dict[str, Any]] = [{"device": "cpu", "name": platform.processor() or platform.machine()}]
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        memory = {"free_gb": round(free / 1e9, 1), "total_gb": round(total / 1e9, 1)}
        devices.append({"device": f"cuda:{number}", "name": name, **memory})
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": "Apple GPU"})
    return devices


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _memory() -> float | None:
    """The machine's memory in GB, None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _extras() -> dict[str, list[str]]:
    """The packages that each extra lacks, by the metadata of the installation."""
    missing: dict[str, list[str]] = {}
    for requirement in requires("deqir") or []:
        found = _REQUIREMENT.match(requirement)
        if found is None or found["extra"] == "test" or found["name"] == "deqir":
            continue
        lacking = missing.setdefault(found["extra"], [])
        if _version(found["name"]) is None:
            lacking.append(found["name"])
    return missing


def _cache() -> dict[str, Any]:
    """The folder into which models from the hub are downloaded, and how much it holds."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return {"folder": str(folder), "megabytes": round(size / 1e6, 1)}


def _prior() -> str:
    """Whether the built-in prior loads: ok, or why not."""
    from deqir.priors import load_prior

    try:
        load_prior()
    except DeqirError as error:
        return str(error)
    return "ok"
