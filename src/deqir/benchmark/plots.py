"""Pareto plots: quality against sequential network calls and against network evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any

from deqir.benchmark.tables import Row
from deqir.errors import MissingExtraError, NonFiniteError
from deqir.images import atomic_write

RING_SIZES = (14, 11, 8, 5)
COSTS = {"sweeps": "sequential network calls", "nfe": "network evaluations"}


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those of the ``points`` (cost, quality) that no cheaper or equally cheap one matches, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or quality > front[-1][1]:
            front.append((cost, quality))
    return front


def draw_pareto(path: Path, rows: Sequence[Row]) -> None:
    """Draw mean PSNR against both costs, one row of axes a task, the classical method as a line, into a PNG file.

    Raises NonFiniteError where there is nothing to draw, MissingExtraError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator
    except ImportError:
        raise MissingExtraError("plots need matplotlib; pip install 'deqir[benchmark]'") from None
    drawable = [row for row in rows if "psnr" in row.means and isfinite(row.means["psnr"].value)]
    if not drawable:
        raise NonFiniteError("no setup has a finite PSNR, so there is nothing to draw; look at the table")
    tasks = list(dict.fromkeys(str(row.setup.degradation) for row in drawable))
    figure = Figure(figsize=(12, 3.6 * len(tasks)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(tasks), len(COSTS), squeeze=False, sharey="row")
    for line, task in zip(axes, tasks, strict=True):
        inside = [row for row in drawable if str(row.setup.degradation) == task]
        for axis, (cost, label) in zip(line, COSTS.items(), strict=True):
            _draw(axis, inside, cost)
            axis.set(title=task, xlabel=label, xscale="log")
            axis.xaxis.set(major_locator=LogLocator(subs=(1, 2, 3, 5, 7)), major_formatter="{x:g}")
            axis.xaxis.set_minor_formatter("")
        line[0].set_ylabel("PSNR (dB)")
        line[-1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))
    data = BytesIO()
    figure.savefig(data, format="png", dpi=110)
    atomic_write(path, data.getvalue())


def _draw(axis: Any, rows: Sequence[Row], cost: str) -> None:
    """Rings of different sizes, so that one shows around another; no gain below what the tables show makes a front."""
    points = []
    for number, row in enumerate(rows):
        quality, name = row.means["psnr"], str(row.setup.method)
        if row.setup.chain is None:
            axis.axhline(quality.value, color="grey", linestyle=":", label=name)
            continue
        calls = row.means[cost]
        points.append((calls.value, quality.value))
        label = f"{name}, {row.setup.prior}, {row.setup.chain.steps} steps"
        ring = {"markersize": RING_SIZES[number % len(RING_SIZES)], "markerfacecolor": "none", "markeredgewidth": 1.8}
        axis.errorbar(*points[-1], yerr=quality.error, xerr=calls.error, fmt="o", capsize=2, label=label, **ring)
    front = pareto_front([(calls, round(decibels, 2)) for calls, decibels in points])
    axis.step([x for x, _ in front], [y for _, y in front], where="post", color="black", linewidth=0.8, zorder=0)
