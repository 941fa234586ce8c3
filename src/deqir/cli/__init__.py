"""The command line; each command is a module that registers itself with the application."""

from __future__ import annotations

import sys

from deqir.cli import (
    benchmark,
    convert,
    degrade,
    demo,
    doctor,
    explain,
    invert,
    optimize,
    priors,
    report,
    restore,
    ui,
    verify,
)
from deqir.cli.app import app
from deqir.cli.console import FAILURE, USAGE, err
from deqir.cli.termination import terminated_as_interrupt
from deqir.errors import DeqirError, OptionError

__all__ = [
    "app",
    "benchmark",
    "convert",
    "degrade",
    "demo",
    "doctor",
    "explain",
    "invert",
    "main",
    "optimize",
    "priors",
    "report",
    "restore",
    "ui",
    "verify",
]


def main() -> None:
    """Run the command line; every error deqir raises on purpose is one sentence on standard error."""
    with terminated_as_interrupt():
        try:
            app()
        except OptionError as error:
            err.print(f"deqir: {error}")
            sys.exit(USAGE)
        except DeqirError as error:
            err.print(f"deqir: {error}")
            sys.exit(FAILURE)
