"""A command as its record keeps it, and run again from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

REPEATED = ("optimize", "invert", "explain")
"""The commands whose records are run again; a record that names another one is none of ours."""

_FILES = ("photo", "out_dir", "overwrite")
"""Parameters that are neither kept nor taken from a record: it names the photo, and a command that is run again writes
into a new folder."""

_NAMED = ("prior", "mask", "weights", "blur", "guide", "guide_network", "palette", "second")
"""Parameters that may name a file whose content decides the result."""


def command_settings(context: typer.Context) -> dict[str, Any]:
    """The command under way, its options and the hashes of the files that they name, as JSON can hold them."""
    from deqir.manifest import content_hashes

    options = {name: _plain(value) for name, value in context.params.items() if name not in _FILES}
    contents = content_hashes(options.get(name) for name in _NAMED)
    return {"command": {"name": context.info_name, "options": options}, "contents": contents}


def run_again(record: dict[str, Any], folder: Path) -> None:
    """Run the command of ``record`` on its photo once more, silently, into ``folder``; nothing else is written.

    Raises DeqirError, where the record names another command or options that this one does not take, too.
    """
    from deqir.cli.app import app
    from deqir.cli.console import err, out
    from deqir.errors import RecordReadError

    name, options = record["command"]["name"], record["command"]["options"]
    if name not in REPEATED:
        raise RecordReadError(f"it is of the command {name!r}, and only {', '.join(REPEATED)} are run again")
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    taken = {parameter.name for parameter in command.params} - set(_FILES)
    given = {key: value for key, value in options.items() if value is not None and key in taken}
    loud = out.quiet, err.quiet
    out.quiet = err.quiet = True
    try:
        with command.make_context(name, ["--out", str(folder), "--", record["file"]], default_map=given) as context:
            command.invoke(context)
    except typer.Exit as ended:
        if ended.exit_code:
            raise RecordReadError(f"{name} ended with exit code {ended.exit_code}") from None
    except Exception as error:
        if not hasattr(error, "format_message"):  # what click, or typer's own copy of it, says of wrong options
            raise
        raise RecordReadError(
            f"its options do not fit {name} ({' '.join(error.format_message().split())[:200]})"
        ) from None
    finally:
        out.quiet, err.quiet = loud


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
