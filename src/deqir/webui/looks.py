"""How the page looks: its theme, and the pieces of HTML that it fills in."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import Any

import gradio as gr
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from deqir.initialization import Iteration
from deqir.report import Recorder, RunRecord
from deqir.report.figures import convergence_picture, image_picture, steps_picture
from deqir.results import Progress
from deqir.solvers import Status
from deqir.webui.trail import Trail
from deqir.webui.workbench import Preview

TITLE = "deqir"
INTRODUCTION = (
    "# deqir\nRestore a photo with a pretrained diffusion model, all timesteps solved at once. "
    "Photos stay on the server of this page and are deleted when you leave."
)
LABELS = {
    "give noise or blur_width to insist": 'to insist, set "Noise in the observation" or "Width of the blur" yourself',
}
"""What the library says in the names of its arguments, in those of the page."""
ROWS = 6
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")


def theme() -> Any:
    """Gradio's own theme with the system's fonts, so that nothing is fetched, and one calm colour."""
    hues = {"primary_hue": gr.themes.colors.teal, "neutral_hue": gr.themes.colors.slate}
    return gr.themes.Default(**hues, font=SANS, font_mono=MONO).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        slider_color="*primary_700",
        slider_color_dark="*primary_500",
    )


def said(text: str, done: int = 0, total: int = 0, warning: str = "") -> str:
    """The status line, which screen readers announce, with a warning, and a bar of the finished timesteps."""
    bar = f'<progress aria-label="what is finished" value="{done}" max="{total}"></progress>' if total else ""
    warned = f'<p class="warning">{escape(warning)}</p>' if warning else ""
    return f'<div role="status" aria-live="polite"><p>{escape(_sentence(text))}</p>{warned}{bar}</div>'


def _sentence(text: str) -> str:
    """``text`` in the page's words, with a capital unless it begins with the name of a file."""
    for named, labelled in LABELS.items():
        text = text.replace(named, labelled)
    first = text.partition(" ")[0]
    return text if "." in first[:-1] or "_" in first else text[:1].upper() + text[1:]


def ready(preview: Preview, limit: int, note: str = "") -> str:
    """The status before restoring; results have at most ``limit`` pixels a side."""
    found = f" {preview.found[:1].upper()}{preview.found[1:]}".rstrip(" .") + "." if preview.found else ""
    if preview.leave_alone:
        return said(f"Nothing to restore:{found.lower()[:2]}{found[2:]} {note}".strip())
    first = f" The photo ({_size(preview.upload)}) is first reduced to {_size(preview.reduced)}."
    text = f"Ready: the result will have {_size(preview.size)} pixels."
    text += (first if preview.reduced != preview.upload else "") + found
    smaller = max(preview.size) < max(preview.upload)
    advice = (
        'Raise "Longest side of the result" to keep more of it.'
        if max(preview.size) < limit
        else "This page makes none larger."
    )
    return said(f"{text} {note}".strip(), warning=f"The result is smaller than the photo. {advice}" if smaller else "")


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"


def under_way(progress: Progress, trail: Trail) -> str:
    """The status while restoring."""
    if progress.residuals is None:
        text = f"Step {progress.done} of {progress.total}"
        if trail.seconds_left is not None:
            text += f", about {_duration(trail.seconds_left)} left"
        return said(f"{text}.", progress.done, progress.total)
    text = f"Sweep {progress.sweep}: {progress.done} of {progress.total} timesteps final"
    if progress.residual == progress.residual:
        text += f", the image moved by {progress.residual:.3g} grey levels"
    return said(f"{text}.", progress.done, progress.total)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def optimising(iteration: Iteration, total: int) -> str:
    """The status while the noise is optimised toward a reference."""
    count = iteration.number + 1
    text = f"Iteration {count} of {total}: distance to the reference {float(iteration.loss[0]):.3g}."
    return said(text, count, total)


def finished(run: RunRecord, note: str = "") -> str:
    """The status of a restoration that ended."""
    record = run.settings
    losses = record.get("losses", [])
    text = f"Distance to the reference {losses[0]:.3g}, then {min(losses):.3g}. " if losses else ""
    text += (
        f"{'Converged' if record['status'] == 'converged' else Status.MAX_SWEEPS.value.capitalize()}: "
        f"{record['solver']} solver, {record['sweeps']} {'steps' if record['solver'] == 'serial' else 'sweeps'}, "
        f"{record['nfe']} network evaluations, "
        f"{record['seconds']:.1f} s."
    )
    if record.get("psnr") is not None and record.get("classical_psnr") is not None:
        text += f" PSNR {record['psnr']:.2f} dB, {record['classical']} {record['classical_psnr']:.2f} dB."
    if "findings" in record:
        text += f" {record['findings']['assumed'].capitalize()}."
    return said(f"{text} {note}".strip())


def caption(text: str) -> str:
    """What stands over the result."""
    return f"<p>{escape(text)}</p>"


def comparison(before: str, after: str, size: tuple[int, int]) -> str:
    """Two pictures of ``size`` (H, W), given by their addresses, one over the other, and a slider between them."""
    images = (
        f'<img class="after" alt="The restored photo" src="{escape(after)}">'
        f'<img class="before" alt="What was restored" src="{escape(before)}">'
    )
    name = "How much of the picture shows what was restored"
    slider = f'<input type="range" min="0" max="100" value="50" aria-label="{name}" aria-valuetext="50 %">'
    full = '<button type="button" class="full">Full screen</button>'
    style = f"--at: 50%; --w: {size[1]}; --h: {size[0]}"
    return f'<div class="compare" style="{style}"><div class="stack">{images}<span></span>{slider}</div>{full}</div>'


def chart(recorder: Recorder, trail: Trail, tolerance: float) -> str:
    """How the chain goes so far: the convergence picture or, of a serial one, the change of the image per step."""
    counts = torch.tensor([done for done, _, _ in recorder.counts])
    if not len(counts):
        changes = list(trail.changes)
        if not changes:
            return ""
        alt = f"Change of the image in steps 2 to {len(changes) + 1} of {trail.total}; the last: {changes[-1]:.3g}"
        return _image(steps_picture(changes, trail.total), alt)
    residuals = torch.stack(recorder.residuals[: len(counts)])  # the solve goes on meanwhile
    sweeps, steps = residuals.shape
    alt = f"Heat map of {sweeps} sweeps by {steps} states; {int(counts[-1])} states are final."
    return _image(convergence_picture(residuals, counts, tolerance, total=min(steps, ROWS)), alt)


def kernel(name: str, weights: Tensor) -> str:
    """A blur kernel as a small picture; white is its largest weight, and black around it, where it has none."""
    scaled = pad(weights / weights.max() * 255, (2, 2, 2, 2)).round().to(torch.uint8)
    enlarged = interpolate(scaled[None, None].float(), (96, 96), mode="nearest")[0].to(torch.uint8)
    height, width = weights.shape
    text = f"{name} kernel, {width} x {height} pixels"
    return f"<figure>{_image(image_picture(enlarged), text)}<figcaption>{escape(text)}</figcaption></figure>"


def _image(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{b64encode(png).decode()}">'
