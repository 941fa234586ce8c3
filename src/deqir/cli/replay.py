"""A command as its record keeps it, and run again from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

_FILES = ("photo", "out_dir", "overwrite")
"""Parameters that are not kept: the record names the photo, and a command that is run again writes elsewhere."""


def command_settings(context: typer.Context) -> dict[str, Any]:
    """The command under way and its options, as JSON can hold them."""
    options = {name: _plain(value) for name, value in context.params.items() if name not in _FILES}
    return {"command": {"name": context.info_name, "options": options}}


def run_again(record: dict[str, Any], folder: Path) -> None:
    """Run the command of ``record`` on its photo once more, silently, into ``folder``. Raises DeqirError."""
    from deqir.cli.app import app
    from deqir.cli.console import err, out

    name, options = record["command"]["name"], record["command"]["options"]
    group = typer.main.get_command(app)
    command = group.commands[name]  # type: ignore[attr-defined]
    given = {key: value for key, value in options.items() if value is not None}
    context = command.make_context(name, [record["file"], "--out", str(folder)], default_map=given)
    loud = out.quiet, err.quiet
    out.quiet = err.quiet = True
    try:
        with context:
            command.invoke(context)
    finally:
        out.quiet, err.quiet = loud


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
