"""Writing the files of a report."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from deqir.errors import MissingExtraError, RunReadError
from deqir.images import atomic_write
from deqir.report.page import draw, render
from deqir.report.run import JSON_NAME, RunRecord

PAGE_NAME = "report.html"


def report_folder(result: Path) -> Path:
    """The folder of the report beside the result file ``result``: ``photo-report`` for ``photo.png``."""
    return result.with_name(f"{result.stem}-report")


def saved_runs(path: Path) -> list[Path]:
    """The runs that ``path`` means: itself or, where it is of a restored folder, all reports there.

    Raises RunReadError where such a folder was restored without reports.
    """
    folder = path.parent if path.suffix == ".jsonl" else path
    if not (folder / "manifest.jsonl").is_file() or (folder / JSON_NAME).is_file():
        return [path]
    runs = [file.parent for file in sorted(folder.glob(f"*-report/{JSON_NAME}"))]
    if not runs:
        raise RunReadError(
            f"{folder} is a folder restored without reports, and its manifest keeps no pictures of the solves; "
            "restore with --report"
        )
    return runs


def check_drawing() -> None:
    """Raise MissingExtraError where the library that draws is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError(
            "reports are drawn with matplotlib, which is not installed; pip install 'deqir[report]'"
        )


def write_report(folder: Path, run: RunRecord) -> Path:
    """Write the page and its pictures into the existing ``folder``, over older ones; returns the page's path.

    Raises MissingExtraError without matplotlib, OutputError where a file cannot be written.
    """
    check_drawing()
    drawings = draw(run)
    for name, png in drawings.light.items():
        atomic_write(folder / f"{name}.png", png)
    atomic_write(folder / PAGE_NAME, render(run, drawings).encode())
    return folder / PAGE_NAME
