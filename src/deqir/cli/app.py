"""The application that the commands register with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from deqir.cli.console import out
from deqir.version import __version__

CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])


class ExampleFirst(TyperCommand):
    """A command whose example, its epilog, stands above the options: on the first screen of its help."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        if self.epilog:
            self.help, self.short_help, self.epilog = f"{self.help}\n\n{self.epilog}", self.help, None


class Application(typer.Typer):
    """A typer application whose commands show their example first."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[CommandFunction], CommandFunction]:
        return super().command(name, cls=ExampleFirst, **settings)


app = Application(
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
