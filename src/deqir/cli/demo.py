"""``deqir demo``: restore the bundled photo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from deqir.cli import words
from deqir.cli.app import app
from deqir.cli.console import out, progress_line
from deqir.cli.words import completed


@app.command(epilog="Example:  deqir demo --out demo/")
def demo(
    out_dir: Annotated[Path, typer.Option("--out", "-o", readable=False, help="Folder for the pictures.")] = Path(
        "deqir-demo"
    ),
    steps: Annotated[int, typer.Option(help="Timesteps of each chain.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of all noise.")] = 0,
    device: Annotated[
        Optional[str],
        typer.Option(
            autocompletion=completed(words.DEVICES), help="cpu, cuda, mps (default: cuda where there is one)."
        ),
    ] = None,
) -> None:
    """Restore a bundled photo three ways, serially and in parallel, and draw one sheet of pictures."""
    from deqir.demo import run_demo

    sheet = run_demo(out_dir, steps, seed, device, progress_line)
    out.print(f"the sheet of pictures is {sheet}")
