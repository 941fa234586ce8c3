"""``deqir report``: draw the report of a saved run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from deqir.cli.app import app
from deqir.cli.console import out


@app.command(epilog="Example:  deqir report results/photo-report")
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(readable=False, help="Folders that deqir restore --report made, or of results with reports."),
    ],
    out_dir: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", readable=False, help="Folder for the page and its pictures (default: the run's)."),
    ] = None,
) -> None:
    """Draw the page and the pictures of saved runs again."""
    from deqir.errors import OptionError
    from deqir.outputs import make_folder
    from deqir.report import check_drawing, read_run, saved_runs, write_report

    check_drawing()
    found = [run for path in runs for run in saved_runs(path)]
    if out_dir is not None and len(found) > 1:
        raise OptionError(f"--out takes the report of one run, but {len(found)} are given; leave it out")
    for path in found:
        run = read_run(path)
        folder = out_dir or (path if path.is_dir() else path.parent)
        make_folder(folder)
        out.print(f"{path} -> {write_report(folder, run)}")
