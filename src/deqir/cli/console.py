"""What the commands write with: two consoles, exit codes and the progress line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console

USAGE, FAILURE = 2, 1

out = Console(soft_wrap=True, highlight=False, markup=False)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


class progress_line:  # noqa: N801  (a context manager used like a function)
    """A progress line on standard error: sweeps, finished timesteps and the current residual."""

    def __init__(self, title: str):
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
        )
        self.bar = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
        self.task = self.bar.add_task(title, total=None, state="")

    def __enter__(self) -> Callable[[Any], None]:
        self.bar.start()
        return self.update

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def update(self, progress: Any) -> None:
        state = f"sweep {progress.sweep}, {progress.done}/{progress.total} timesteps final"
        if progress.residual == progress.residual:
            state += f", residual {progress.residual:.3g} grey levels"
        self.bar.update(self.task, completed=progress.done, total=progress.total, state=state)
