"""What the commands write with: two consoles, exit codes and the progress line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
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
        if not self.bar.disable:  # Rich before 14 ends with an empty line even where it shows nothing
            self.bar.start()
        return self.update

    def __exit__(self, *exception: object) -> None:
        if not self.bar.disable:
            self.bar.stop()

    def update(self, progress: Any) -> None:
        state = f"sweep {progress.sweep}, {progress.done}/{progress.total} timesteps final"
        if progress.residual == progress.residual:
            state += f", residual {progress.residual:.3g} grey levels"
        self.bar.update(self.task, completed=progress.done, total=progress.total, state=state)


@contextmanager
def folder_progress(title: str, total: int, visible: bool = True) -> Iterator[Callable[[float], None]]:
    """A progress line on standard error: files done, time taken and time left; call what it gives with files done."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description} {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    shown = visible and err.is_terminal
    bar = Progress(*columns, console=err, transient=True, disable=not shown, redirect_stdout=out.is_terminal)
    task = bar.add_task(title, total=total)
    with bar if shown else nullcontext():
        yield lambda files: bar.update(task, advance=files)


def restored_line(record: dict[str, Any], target: Path) -> str:
    """How one image was restored, on one line."""
    cost = f"{counted(record['sweeps'], 'sweep')}, {counted(record['nfe'], 'network evaluation')}"
    line = (
        f"{record['file']} -> {target}: {record['task']}, {record['solver']} ({record['solver_reason']}), "
        f"{cost}, {record['seconds']:.1f} s"
    )
    if record["noise_estimated"]:
        line += f", noise estimated as {record['noise']:.4f}"
    if "findings" in record:
        line += f"; {record['findings']['assumed']}"
    if "mask_file" in record:
        line += f"; the mask is {record['mask_file']}, edit it and give it back with --mask"
    if record["status"] == "max_sweeps":
        line += f"; {_unfinished(record['estimated_error'])}"
    elif record["status"] != "converged":
        line += f", {record['status']}"
    if "psnr" in record:
        line += (
            f", PSNR {_decibels(record['psnr'])} ({record['classical']} {_decibels(record['classical_psnr'])}), "
            f"SSIM {_similarity(record['ssim'])} ({_similarity(record['classical_ssim'])})"
        )
    return line


def counted(number: int, thing: str) -> str:
    """``number`` and the noun ``thing``, in the plural where there is not exactly one."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _unfinished(error: float | None) -> str:
    """That a solve has not converged, how far it is thought to be off, and what to do."""
    from deqir.solvers import Status

    off = "by an unknown amount" if error is None else f"by an estimated {error:.3g} grey levels"
    return f"not converged, off {off}: {Status.MAX_SWEEPS.value}"


def _similarity(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _decibels(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.2f} dB"
