"""The drawings of a report: the convergence picture, the film strip and the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from deqir.report.run import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 130
COLOURS = "viridis"  # even steps of lightness, readable in grey and with every kind of colour blindness
FRAMES_SHOWN = 8
WIDTH = 9.6  # inches

_ROW_LABEL: dict[str, Any] = {
    "rotation": "vertical",
    "fontsize": 9,
    "ha": "center",
    "va": "center",
    "multialignment": "center",
}


def _plain(value: float, position: float | None) -> str:
    """A tick's label, 0.1 and not 10^-1."""
    return f"{value:g}"


@dataclass(frozen=True)
class Palette:
    """The colours of a drawing: its paper, its ink, and what is drawn where nothing was computed."""

    paper: str
    ink: str
    final: str
    accent: str


LIGHT = Palette("#ffffff", "#1f2430", "#e4e6eb", "#c2410c")
DARK = Palette("#1a1d24", "#e6e8ee", "#343945", "#fb923c")


def convergence_picture(
    residuals: Tensor, finished: Tensor, tolerance: float, palette: Palette = LIGHT, total: int | None = None
) -> bytes:
    """A PNG of how a parallel solve converged: ``residuals`` (N, S) in grey levels, ``finished`` (N,).

    One row a sweep, one column a state; colour is how far the sweep moved the state, on a logarithmic scale. A line
    bounds the finished prefix. On the right, the same for the last state, the restored image, with ``tolerance``.
    ``total`` leaves room for that many sweeps.
    """
    rows = max(len(residuals), total or 0)
    height = min(6.5, 2.4 + 0.24 * rows)
    figure = _figure(WIDTH, height, palette)
    bottom, top = 0.56 / height, 1 - 0.34 / height
    heat = figure.add_axes((0.055, bottom, 0.60, top - bottom))
    bar = figure.add_axes((0.665, bottom, 0.014, top - bottom))
    last = figure.add_axes((0.765, bottom, 0.22, top - bottom), sharey=heat)
    _heat_map(heat, bar, residuals, finished, palette)
    _last_state(last, residuals[:, -1], tolerance, palette)
    heat.set_ylim(rows + 0.5, 0.5)
    return _png(figure)


def _heat_map(axes: Axes, bar: Axes, residuals: Tensor, finished: Tensor, palette: Palette) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    sweeps, steps = residuals.shape
    values = np.ma.masked_less_equal(np.ma.masked_invalid(residuals.double().numpy()), 0)
    low, high = (float(values.min()), float(values.max())) if values.count() else (0.1, 1.0)
    norm = LogNorm(max(low, 1e-3 * high), high if high > low else 10 * low, clip=True)
    axes.set_facecolor(palette.paper)
    axes.axhspan(0.5, sweeps + 0.5, color=palette.final, zorder=-1, linewidth=0)
    extent = (0.5, steps + 0.5, sweeps + 0.5, 0.5)
    image = axes.imshow(values, COLOURS, norm, aspect="auto", extent=extent, interpolation="nearest")
    edges = np.repeat(np.arange(sweeps + 1) + 0.5, 2)[1:-1]
    axes.plot(np.repeat(finished.numpy() + 0.5, 2), edges, color=palette.accent, linewidth=2.2, label="finished prefix")
    axes.set_xlim(0.5, steps + 0.5)
    axes.set_xlabel(f"state: 1, nearly pure noise, to {steps}, the restored image")
    axes.set_ylabel("sweep")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    bar_label = axes.figure.colorbar(image, cax=bar)
    bar_label.set_label("change, grey levels")
    bar.yaxis.set_major_formatter(_plain)
    bar.yaxis.set_minor_formatter("")
    _tint(bar, palette)
    _tint(axes, palette)
    axes.set_title("how far each sweep moved each state; grey: final or not reached", **_title(palette))
    axes.legend(loc="lower left", fontsize=8.5, facecolor=palette.paper, labelcolor=palette.ink, framealpha=0.9)


def _last_state(axes: Axes, residuals: Tensor, tolerance: float, palette: Palette) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    values = residuals.double().numpy()
    sweeps = np.arange(1, len(values) + 1)
    drawn = np.isfinite(values) & (values > 0)
    axes.set_facecolor(palette.paper)
    axes.plot(values[drawn], sweeps[drawn], "o-", color=palette.ink, markersize=4, linewidth=1.4)
    if tolerance > 0:
        style: dict[str, Any] = {"color": palette.accent, "linestyle": "--", "linewidth": 1.4}
        axes.axvline(tolerance, label=f"tolerance {tolerance:g}", **style)
        axes.legend(loc="lower right", fontsize=8.5, facecolor=palette.paper, labelcolor=palette.ink, framealpha=0.9)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_major_formatter(_plain)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("change, grey levels")
    axes.tick_params(labelleft=False)
    axes.grid(True, alpha=0.25)
    _tint(axes, palette)
    axes.set_title("the restored image", **_title(palette))


def steps_picture(changes: Sequence[float], total: int, palette: Palette = LIGHT) -> bytes:
    """A PNG of how far each step of a serial chain of ``total`` steps moved its clean image, from the second step on.

    In grey levels, on a logarithmic scale.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    height = 2.8
    figure = _figure(WIDTH, height, palette)
    axes = figure.add_axes((0.075, 0.56 / height, 0.91, 1 - 0.9 / height))
    axes.set_facecolor(palette.paper)
    steps = np.arange(2, len(changes) + 2)
    values = np.asarray(changes, dtype=float)
    drawn = np.isfinite(values) & (values > 0)
    axes.plot(steps[drawn], values[drawn], "o-", color=palette.ink, markersize=3.5, linewidth=1.4)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axes.yaxis.set_major_formatter(_plain)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(1, max(total, 2))
    axes.set_xlabel(f"step, of {total}")
    axes.set_ylabel("change, grey levels")
    axes.grid(True, alpha=0.25)
    _tint(axes, palette)
    axes.set_title("how far each step moved the image", **_title(palette))
    return _png(figure)


def film_picture(run: RunRecord, palette: Palette = LIGHT) -> bytes:
    """A PNG of the image as it formed.

    A parallel solve: the last state after some sweeps, and under each how far it still was from the end. Then, for any
    run, states of the chain as they ended, from noise to the image, and the clean image that the network sees in each.
    """
    strips: list[tuple[str, list[str], list[Any]]] = []
    if run.is_parallel:
        frames = _spread(len(run.film), FRAMES_SHOWN)
        titles = [f"sweep {int(run.film_sweeps[frame])}" for frame in frames]
        distances = [(run.film[frame].float() - run.film[-1].float()).abs().mean(0) for frame in frames]
        top = max(1.0, *(float(distance.quantile(0.995)) for distance in distances))
        strips.append(("the image", titles, [_pixels(run.film[frame]) for frame in frames]))
        scaled = [(distance / top).clamp(max=1).numpy() for distance in distances]
        strips.append((f"to its end,\n0 to {top:.0f} levels", [], scaled))
    numbers, timesteps = run.state_numbers.tolist(), run.timesteps.tolist()
    strips.append(("states at\nthe end", [f"state {number}" for number in numbers], [_pixels(x) for x in run.states]))
    seen_at = [f"at t = {timesteps[number]}" for number in numbers[:-1]]
    strips.append(("denoised\nestimate", [*seen_at, "the image"], [_pixels(x) for x in run.estimates]))
    return _png(_strips(strips, run.states.shape[-2] / run.states.shape[-1], palette))


def _strips(strips: list[tuple[str, list[str], list[Any]]], aspect: float, palette: Palette) -> Figure:
    """Rows of equal pictures of height over width ``aspect``: the row's label, titles above its pictures, pictures."""
    columns = max(len(images) for _, _, images in strips)
    left, gap, head = 0.75, 0.06, 0.28  # inches
    width = (WIDTH - left) / max(columns, 4) - gap
    height = width * _bounded(aspect, least=0.8)  # which leaves room for the labels
    total = sum(height + gap + (head if titles else 0) for _, titles, _ in strips)
    figure = _figure(WIDTH, total, palette)
    y = total
    for label, titles, images in strips:
        y -= height + gap + (head if titles else 0)
        figure.text(0.3 * left / WIDTH, (y + height / 2) / total, label, color=palette.ink, **_ROW_LABEL)
        for column, image in enumerate(images):
            x = left + column * (width + gap)
            axes = figure.add_axes((x / WIDTH, y / total, width / WIDTH, height / total))
            bytes_ = image.dtype == np.uint8
            axes.imshow(image, cmap="gray" if bytes_ else COLOURS, vmin=0, vmax=255 if bytes_ else 1)
            axes.set_axis_off()
            if titles:
                axes.set_title(titles[column], fontsize=9, color=palette.ink, pad=4)
    return figure


def _bounded(aspect: float, least: float = 0.2) -> float:
    """``aspect``, height over width, of a box for a picture: of a very long one the rest stays empty."""
    return min(max(aspect, least), 2.0)


def difference_picture(difference: Tensor, palette: Palette = LIGHT) -> bytes:
    """A PNG of ``difference`` (h, w) in grey levels with its scale; the 0.5 % largest share the last colour."""
    values = difference.double().numpy()
    top = max(1.0, float(np.quantile(values, 0.995)))
    width, legend = 4.8, 0.52  # inches
    height = width * _bounded(values.shape[0] / values.shape[1]) + legend
    figure = _figure(width, height, palette)
    axes = figure.add_axes((0, legend / height, 1, 1 - legend / height))
    image = axes.imshow(values, COLOURS, vmin=0, vmax=top, interpolation="nearest")
    axes.set_axis_off()
    bar_axes = figure.add_axes((0.03, (legend - 0.2) / height, 0.94, 0.13 / height))
    bar = figure.colorbar(image, cax=bar_axes, orientation="horizontal", extend="max")
    bar.ax.xaxis.set_major_formatter(_plain)
    _tint(bar.ax, palette)
    bar.ax.tick_params(labelsize=12)
    return _png(figure)


def image_picture(image: Tensor) -> bytes:
    """A PNG of ``image`` (C, h, w) uint8, pixel for pixel."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(_pixels(image))).save(buffer, "PNG")
    return buffer.getvalue()


def webp(png: bytes) -> bytes:
    """``png`` as WebP of quality 88."""
    from PIL import Image

    buffer = BytesIO()
    Image.open(BytesIO(png)).convert("RGB").save(buffer, "WEBP", quality=88)
    return buffer.getvalue()


def _figure(width: float, height: float, palette: Palette) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=palette.paper)


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _tint(axes: Axes, palette: Palette) -> None:
    """Ink for everything that is written or lined."""
    axes.tick_params(colors=palette.ink, which="both", labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(palette.ink)
    for spine in axes.spines.values():
        spine.set_color(palette.ink)


def _title(palette: Palette) -> dict[str, Any]:
    return {"fontsize": 9.5, "color": palette.ink, "loc": "left"}


def _pixels(image: Tensor) -> Any:
    """(h, w) or (h, w, 3) uint8."""
    return image[0].numpy() if image.shape[0] == 1 else image.permute(1, 2, 0).numpy()


def _spread(count: int, limit: int) -> list[int]:
    """At most ``limit`` of the numbers 0 .. count-1, evenly spread, first and last among them."""
    chosen = min(count, limit)
    return sorted({round((count - 1) * i / max(1, chosen - 1)) for i in range(chosen)} | {count - 1})
