"""``--config``: options from a JSON file; those on the command line win."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from deqir.errors import OptionError, RunReadError

_NOT_REPEATED = {"config", "device", "max_batch", "overwrite", "out_dir", "photos", "stats", "version", "with_report"}
"""What a record tells of its machine and of its files, and what asks for more than the result."""


def use_config(context: typer.Context, parameter: typer.CallbackParam, file: Path | None) -> Path | None:
    """Make the options in ``file`` the defaults of the command.

    It is a JSON object of options by their names without dashes (``max_sweeps``), or what deqir saved: ``run.json`` of
    a report, a file of ``--stats`` with one record, or the settings of the web page. Raises RunReadError where the file
    cannot be read, OptionError where it holds what is no option.
    """
    if file is None:
        return None
    options = {option.name for option in context.command.params if option.name} - {"config"}
    content = _read(file)
    saved = _saved_settings(content)
    given = content if saved is None else {key: saved[key] for key in saved if key in options - _NOT_REPEATED}
    given = _flat(given if saved is None else {**given, "task": saved.get("task_settings", saved.get("task"))})
    unknown = sorted(given.keys() - options)
    if unknown:
        raise OptionError(f"{file} holds {', '.join(unknown)}, which {context.info_name} does not know; remove it")
    context.default_map = {**(context.default_map or {}), **given}
    return file


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunReadError(f"config {file} does not exist; check the spelling of the path") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunReadError(f"config {file} is not readable JSON ({error}); correct it") from None
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        raise RunReadError(f"config {file} holds no single JSON object; give one object of options, or one record")
    return content


def _saved_settings(content: dict[str, Any]) -> dict[str, Any] | None:
    """The settings in a file that deqir saved; None for a plain object of options."""
    inner = content.get("settings")
    if isinstance(inner, dict):
        return inner
    if content.get("status") == "unchanged":  # no solver was at work, and an estimate must not pass for a given level
        found = {"solver", "noise"} if content.get("noise_estimated") else {"solver"}
        return {key: value for key, value in content.items() if key not in found}
    return content if "status" in content else None


def _flat(given: dict[str, Any]) -> dict[str, Any]:
    """Options as the command line writes them: the task's settings beside the others, lists with commas, no None."""
    task = given.get("task")
    if isinstance(task, dict):
        given = {**given, **task, "task": task.get("name")}
        given.pop("name", None)
    return {key: _written(value) for key, value in given.items() if value is not None}


def _written(value: Any) -> Any:
    """A number or a list as one writes it on the command line; a switch stays what it is."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
