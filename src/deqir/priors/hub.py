"""Priors on the Hugging Face hub, through its client's own cache: resumed, shared with diffusers, usable offline."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from deqir.errors import DeqirError, DownloadError
from deqir.priors.diffusers_folder import WEIGHT_FILES, read_json

CONFIG_FILES = ("model_index.json", "config.json", "scheduler_config.json", "*/config.json", "*/scheduler_config.json")
PART = r"[A-Za-z0-9][\w.-]*"
CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")


def is_hub_id(text: str) -> bool:
    """Whether ``text`` reads as ``owner/name`` or a checkpoint file in such a repository, ``owner/name/file.pt``."""
    parts = len(text.split("/"))
    is_file = text.endswith(CHECKPOINT_SUFFIXES)
    return re.fullmatch(rf"{PART}(/{PART})+", text) is not None and (parts > 2 if is_file else parts == 2)


def fetch(hub_id: str) -> Path:
    """The local folder of the diffusers model ``owner/name``, or the local file ``owner/name/file.pt``.

    Fetched into the hub client's cache (``HF_HOME``) where it is not there yet; an interrupted download resumes.
    Safetensors weights are preferred to pickled ones. Raises DownloadError.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    owner, name, *path = hub_id.split("/")
    if path:
        return Path(_told(hub_id, partial(hf_hub_download, f"{owner}/{name}", "/".join(path))))
    for weights in WEIGHT_FILES:
        patterns = [*CONFIG_FILES, weights, f"unet/{weights}"]
        folder = Path(_told(hub_id, partial(snapshot_download, hub_id, allow_patterns=patterns)))
        if (folder / weights).exists() or (folder / "unet" / weights).exists():
            break
    return folder


def _told(hub_id: str, download: Callable[[], str]) -> str:
    """The path that ``download`` returns; its failures in one sentence."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return download()
    except GatedRepoError:
        reason = "it is gated: accept its terms on huggingface.co and log in with `hf auth login`"
    except RepositoryNotFoundError:
        reason = "the hub has no such repository, or it is private: check the name"
    except LocalEntryNotFoundError:
        reason = (
            "it is not in the cache and the hub cannot be reached: go online (unset HF_HUB_OFFLINE) or give a folder"
        )
    except EntryNotFoundError:
        reason = "the repository has no such file: check its name"
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise DownloadError(f"prior {hub_id} is no file or folder here and could not be fetched; {reason}")


def cached_models() -> Iterator[tuple[str, Path]]:
    """(hub id, folder) of every ``UNet2DModel`` in the hub client's cache that has its weights."""
    from huggingface_hub.constants import HF_HUB_CACHE

    for repository in sorted(Path(HF_HUB_CACHE).glob("models--*--*")):
        for folder in sorted(repository.glob("snapshots/*")):
            if _is_model(folder):
                yield "/".join(repository.name.split("--")[1:]), folder
                break


def _is_model(folder: Path) -> bool:
    model = folder / "unet" if (folder / "unet").is_dir() else folder
    if not any((model / weights).exists() for weights in WEIGHT_FILES) or not (model / "config.json").exists():
        return False
    try:
        return read_json(model / "config.json").get("_class_name") == "UNet2DModel"
    except DeqirError:
        return False


def is_cached(hub_id: str) -> bool:
    """Whether the file ``owner/name/file.pt`` is in the hub client's cache."""
    from huggingface_hub import try_to_load_from_cache

    owner, name, *path = hub_id.split("/")
    return isinstance(try_to_load_from_cache(f"{owner}/{name}", "/".join(path)), str)
