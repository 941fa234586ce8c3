"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from deqir.report.figures import DARK, LIGHT, convergence_picture, difference_picture, film_picture, image_picture, webp
from deqir.report.run import RunRecord
from deqir.report.style import STYLE

STATUS = {
    "converged": "converged",
    "max_sweeps": "stopped at max_sweeps before the tolerance was met",
}
TOP_SETTINGS = {
    "task", "task_settings", "steps", "eta", "noise", "rule", "rule_settings", "spacing", "travel_length",
    "travel_repeat", "average", "seed", "prior", "solver", "solver_reason", "tolerance", "max_sweeps", "window",
    "max_batch", "device", "dtype", "version", "shape",
}  # fmt: skip


ESTIMATED = (
    "* Estimated, not run: as many single network calls as the serial chain has steps, each at the time of one, the "
    "better of two that were timed after this run. A ratio below 1 is in favour of this run."
)
SMALL = 250_000  # bytes


@dataclass(frozen=True)
class Drawings:
    """PNG files of a report by name; those with ink on paper have a dark version, too."""

    light: dict[str, bytes]
    dark: dict[str, bytes]


def draw(run: RunRecord) -> Drawings:
    """All pictures of ``run``."""
    pictures = {name: image_picture(image) for name, image in (*run.pictures.items(), *run.overlays.items())}
    both = []
    for palette in (LIGHT, DARK):
        drawn = {"difference": difference_picture(run.difference, palette), "film-strip": film_picture(run, palette)}
        if run.is_parallel:
            tolerance = float(run.settings["tolerance"])
            drawn["convergence"] = convergence_picture(run.residuals, run.finished, tolerance, palette)
        both.append(drawn)
    return Drawings({**pictures, **both[0]}, both[1])


def render(run: RunRecord, drawings: Drawings) -> str:
    """The page of ``run``: no script, no request, every picture inside."""
    name = escape(str(run.settings["file"]).replace("\\", "/").rsplit("/", 1)[-1])
    body = "\n".join(
        (
            _header(run, name),
            _pictures(run, drawings),
            _convergence(run, drawings),
            _film(run, drawings),
            _overlays(run, drawings),
            _settings(run),
        )
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{name}: deqir report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )


def _header(run: RunRecord, name: str) -> str:
    settings = run.settings
    status = str(settings["status"])
    mark = "good" if status == "converged" else "warn"
    shape = settings.get("shape")
    size = f", {shape[2]} x {shape[1]} pixels" if isinstance(shape, list) and len(shape) == 3 else ""
    return (
        f'<header>\n<h1>{name}</h1>\n<p class="lead">{escape(str(settings["task"]))}{escape(size)}, '
        f"{escape(str(settings['solver']))} solver "
        f'<span class="status {mark}">{escape(STATUS.get(status, status))}</span></p>\n</header>\n{_costs(run)}'
    )


def _costs(run: RunRecord) -> str:
    """What the run cost, against the serial chain where it was parallel; and how good it is where that is known."""
    settings = run.settings
    steps, (sweeps, nfe, seconds) = len(run.timesteps), (settings[key] for key in ("sweeps", "nfe", "seconds"))
    rows: list[tuple[str, ...]]
    heads: tuple[str, ...]
    if run.is_parallel:
        serial = settings.get("serial_seconds")
        known = isinstance(serial, (int, float)) and serial > 0
        rows = [
            ("Sequential network calls", f"{sweeps}", f"{steps}", f"{sweeps / steps:.2f}"),
            ("Images handed to the network", f"{nfe}", f"{steps}", f"{nfe / steps:.2f}"),
            ("Seconds", f"{seconds:.2f}", *((f"{serial:.2f} *", f"{seconds / serial:.2f}") if known else ("-", "-"))),
        ]
        heads = ("", "this run", "serial chain", "ratio")
    else:
        rows = [
            ("Sequential network calls", f"{sweeps}"),
            ("Images handed to the network", f"{nfe}"),
            ("Seconds", f"{seconds:.2f}"),
        ]
        heads = ("", "serial chain")
    tables = _table("Cost", heads, rows) + _quality(settings)
    note = f'\n<p class="note">{ESTIMATED}</p>' if run.is_parallel else ""
    return f'<section aria-label="Figures">\n<div class="tables">{tables}</div>{note}\n</section>'


def _quality(settings: dict[str, Any]) -> str:
    rows = [
        (
            "Distance of the result, degraded again, to the observation, 0..1",
            _number(settings.get("measurement_error"), ".2g"),
        )
    ]
    if settings["solver"] != "serial":
        error = _number(settings.get("estimated_error"), ".3g", "unknown")
        rows.insert(0, ("Estimated distance to the serial answer, grey levels", error))
    if "psnr" not in settings:
        return _table("Exactness", ("", "result"), rows)
    classical = str(settings.get("classical", "classical"))
    against = [
        ("PSNR, dB", *(_number(settings.get(key), ".2f", "infinite") for key in ("psnr", "classical_psnr"))),
        ("SSIM", *(_number(settings.get(key), ".4f") for key in ("ssim", "classical_ssim"))),
    ]
    return _table("Exactness", ("", "result"), rows) + _table("Against the truth", ("", "result", classical), against)


def _number(value: Any, form: str, missing: str = "-") -> str:
    return format(value, form) if isinstance(value, (int, float)) else missing


def _table(caption: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' if text else "<td></td>" for text in heads)
    lines = (
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f"<table>\n<caption>{escape(caption)}</caption>\n<tr>{head}</tr>\n{''.join(lines)}\n</table>"


def _pictures(run: RunRecord, drawings: Drawings) -> str:
    task, truth = escape(str(run.settings["task"])), "truth" in run.pictures
    texts = {
        "observation": ("Observation", f"The observation of task {task}"),
        "result": ("Result", "The restored image"),
        "truth": ("Truth", "The photo from which the observation was made"),
    }
    figures = [_figure(*texts[name], drawings.light[name], css="pixels") for name in run.pictures]
    other, mean = ("the truth" if truth else "what the observation alone gives"), float(run.difference.mean())
    figures.append(
        _figure(
            f"Difference to {other}: {mean:.2f} grey levels on average",
            f"Map of the absolute difference between the result and {other}, mean {mean:.2f} grey levels",
            drawings.light["difference"],
            drawings.dark["difference"],
        )
    )
    return f'<section>\n<h2>Pictures</h2>\n<div class="grid">\n{"".join(figures)}\n</div>\n</section>'


def _convergence(run: RunRecord, drawings: Drawings) -> str:
    if not run.is_parallel:
        text = "A serial chain has no convergence picture: every state is computed once, in order."
        return f"<section>\n<h2>Convergence</h2>\n<p>{text}</p>\n</section>"
    sweeps, steps = run.residuals.shape
    last = run.residuals[:, -1].tolist()
    alt = (
        f"Heat map of {sweeps} sweeps by {steps} states. The restored image moved by {last[0]:.3g} grey levels in the "
        f"first sweep and by {last[-1]:.3g} in the last. Finished states after each sweep: "
        f"{', '.join(str(count) for count in run.finished.tolist())}."
    )
    caption = (
        "Every row is one sweep: one network call on all states that are not final, noisy ones on the left. Colour is "
        "how far the sweep moved a state; left of the line all states are final and cost nothing more."
    )
    figure = _figure(caption, alt, drawings.light["convergence"], drawings.dark["convergence"], wide=True)
    return f"<section>\n<h2>Convergence</h2>\n{figure}\n</section>"


def _film(run: RunRecord, drawings: Drawings) -> str:
    states = ", ".join(str(number) for number in run.state_numbers.tolist())
    below = (
        "states of the chain as they ended, and the clean image that the network sees in each of them, at timestep t"
    )
    caption = f"From noise to the restored image: {below}."
    alt = f"Film strip: states {states} of the chain as they ended, and the denoised estimate in each."
    if run.is_parallel:
        sweeps = ", ".join(str(sweep) for sweep in run.film_sweeps.tolist())
        caption = f"Above, the restored image after some of the sweeps and how far it was from its end. Below, {below}."
        alt = (
            f"Film strip: the restored image after sweeps {sweeps}, its distance to the end, states {states} as they "
            "ended, and the denoised estimate in each."
        )
    figure = _figure(caption, alt, drawings.light["film-strip"], drawings.dark["film-strip"], wide=True)
    return f"<section>\n<h2>The image as it forms</h2>\n{figure}\n</section>"


def _overlays(run: RunRecord, drawings: Drawings) -> str:
    """The maps that were asked for, nothing without any."""
    if not run.overlays:
        return ""
    asked = run.settings["overlays"]
    seeds, region = asked.get("seeds"), asked.get("region")
    found = {key: _grey_levels(asked.get(key)) for key in ("image_spread", "region_spread")}
    frame = f"the framed region ({region})"
    inside = f", {found['region_spread']} in {frame}" if region else ""
    texts = {
        "decided": (
            f"What decided {frame}: the brighter an observed value, the more a change of it moves the region.",
            f"The observation with a map of what decided the region {region}",
        ),
        "noise": (
            f"The same for the initial noise: the brighter, the more the seed alone decided {frame}.",
            f"The result with a map of the initial noise that decided the region {region}",
        ),
        "spread": (
            f"How far {seeds} seeds differ: a standard deviation of {found['image_spread']} on average{inside}.",
            f"The result with a map of the standard deviation over {seeds} seeds",
        ),
    }
    figures = [_figure(*texts[name], drawings.light[name], css="pixels") for name in run.overlays]
    return f'<section>\n<h2>Why, and how sure</h2>\n<div class="grid">\n{"".join(figures)}\n</div>\n</section>'


def _grey_levels(value: Any) -> str:
    return f"{255 * value:.2g} grey levels" if isinstance(value, (int, float)) else "unknown"


def _settings(run: RunRecord) -> str:
    rows = [(key, _plain(value)) for key, value in run.settings.items() if key in TOP_SETTINGS]
    table = _table("All that made this run", ("setting", "value"), rows)
    return f'<section class="settings">\n<h2>Settings</h2>\n{table}\n</section>'


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    return " x ".join(str(entry) for entry in value) if isinstance(value, list) else str(value)


def _figure(caption: str, alt: str, light: bytes, dark: bytes | None = None, css: str = "", wide: bool = False) -> str:
    """A picture with its caption; a ``wide`` one scrolls sideways where there is no room, by keys, too."""
    image = f'<img src="{_data(light)}" alt="{escape(alt)}"{f" class={css!r}" if css else ""}>'
    if dark is not None:
        source = f'<source srcset="{_data(dark)}" media="(prefers-color-scheme: dark)">'
        image = f"<picture>{source}{image}</picture>"
    if wide:
        image = f'<div class="wide" role="region" aria-label="Picture, scrolls sideways" tabindex="0">{image}</div>'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _data(png: bytes) -> str:
    """The picture as a data URI: noise makes large PNGs, which become WebP of good quality."""
    kind, data = ("png", png) if len(png) < SMALL else ("webp", webp(png))
    return f"data:image/{kind};base64,{b64encode(data).decode()}"
