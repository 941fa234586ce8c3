"""The application that the commands register with."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from deqir.cli.console import out
from deqir.errors import OptionError
from deqir.version import __version__

_OPTION_ALONE = re.compile(r"--[\w-]+=")
CommandFunction = TypeVar("CommandFunction", bound=Callable[..., Any])


class Command(TyperCommand):
    """A command whose example, its epilog, stands above the options: on the first screen of its help."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        if self.epilog:
            self.help, self.short_help, self.epilog = f"{self.help}\n\n{self.epilog}", self.help, None

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse what is empty, a shell variable that is not set say: as a path it would be the current folder."""
        empty = None if ctx.resilient_parsing else _empty(args)
        if empty is not None:
            raise OptionError(f"{empty} is empty; give a value")
        return super().parse_args(ctx, args)


def _empty(args: list[str]) -> str | None:
    """What in ``args`` has an empty value."""
    for before, text in zip(["", *args], args, strict=False):
        if text == "":
            return before if before.startswith("-") else "one of the names"
        if _OPTION_ALONE.fullmatch(text):
            return text[:-1]
    return None


class Application(typer.Typer):
    """A typer application whose commands show their example first."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[CommandFunction], CommandFunction]:
        return super().command(name, cls=Command, **settings)


app = Application(
    name="deqir",
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
    """Restore images with a pretrained diffusion model, all timesteps solved at once.

    Example:  deqir restore small.jpg --task sr --scale 4 --out results/
    """
