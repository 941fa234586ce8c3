"""The command line; each command is a module that registers itself with the application."""

from __future__ import annotations

import sys

from deqir.cli import benchmark, convert, degrade, demo, doctor, priors, restore
from deqir.cli.app import app
from deqir.cli.console import FAILURE, USAGE, err
from deqir.errors import DeqirError, OptionError

__all__ = ["app", "benchmark", "convert", "degrade", "demo", "doctor", "main", "priors", "restore"]


def main() -> None:
    """Run the command line; every error deqir raises on purpose is one sentence on standard error."""
    try:
        app()
    except OptionError as error:
        err.print(f"deqir: {error}")
        sys.exit(USAGE)
    except DeqirError as error:
        err.print(f"deqir: {error}")
        sys.exit(FAILURE)
