"""The metadata that deqir keeps beside pixels and tensors, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from deqir.errors import ImageReadError, OptionError
from deqir.images.files import PILLOW_FORMATS, StrPath, existing_file, forbidden, one_line, opened

METADATA_KEY = "deqir"


def read_metadata(path: StrPath) -> dict[str, Any] | None:
    """The metadata that deqir kept in a .png or .safetensors file, or None where there is none."""
    if Path(path).suffix.lower() == ".safetensors":
        text = read_safetensors_header(path).get(METADATA_KEY)
    else:
        with opened(path) as file, Image.open(file, formats=PILLOW_FORMATS) as image:
            text = image.info.get(METADATA_KEY)
    return None if text is None else metadata_from_json(text, path)


def metadata_to_json(metadata: dict[str, Any]) -> str:
    """One line of ASCII JSON."""
    try:
        return json.dumps(metadata)
    except (TypeError, ValueError) as error:
        raise OptionError(f"metadata cannot be stored as JSON ({one_line(error)}); use plain values only") from error


def metadata_from_json(text: str, path: StrPath) -> dict[str, Any]:
    """The dict that ``metadata_to_json`` wrote."""
    try:
        metadata = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ImageReadError(f"{path} holds metadata that is not JSON ({one_line(error)}); write it again") from error
    if not isinstance(metadata, dict):
        raise ImageReadError(f"{path} holds metadata that is not a JSON object; write it again")
    return metadata


def read_safetensors_header(path: StrPath) -> dict[str, str]:
    """The metadata of a .safetensors file, without its tensors."""
    from safetensors import SafetensorError, safe_open

    path = existing_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except PermissionError as error:
        raise forbidden(path) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ImageReadError(
            f"{path} is not a readable safetensors file ({one_line(error)}); write it again"
        ) from error
