"""The application that the commands register with."""

from __future__ import annotations

from typing import Annotated

import typer

from deqir.cli.console import out
from deqir.version import __version__

app = typer.Typer(
    name="deqir",
    help="Restore images with a pretrained diffusion model, all timesteps solved at once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        out.print(f"deqir {__version__}")
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Restore images with a pretrained diffusion model, all timesteps solved at once."""
