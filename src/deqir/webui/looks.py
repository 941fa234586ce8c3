"""How the page looks: its theme, its style sheet, and the pieces of HTML that it fills in."""

from __future__ import annotations

from base64 import b64encode
from html import escape
from typing import Any

import gradio as gr
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from deqir.initialization import Iteration
from deqir.report import Recorder, RunRecord
from deqir.report.figures import convergence_picture, image_picture
from deqir.results import Progress
from deqir.solvers import Status

TITLE = "deqir"
INTRODUCTION = (
    "# deqir\nRestore a photo with a pretrained diffusion model, all timesteps solved at once. "
    "Photos stay on the server of this page and are deleted when you leave."
)
STYLE = """
.gradio-container { max-width: 84rem !important; margin: 0 auto !important; }
.prose h1 { margin-bottom: .1rem; }
#status p { margin: 0 0 .3rem; }
#status progress { appearance: none; width: 100%; height: .6rem; border: 0; border-radius: .3rem; overflow: hidden;
  background: #cbd5e1; }
#status progress::-webkit-progress-bar { background: #cbd5e1; }
#status progress::-webkit-progress-value { background: #0f766e; }
#status progress::-moz-progress-bar { background: #0f766e; }
#picture img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated; }
#chart img { width: 100%; height: auto; border-radius: 6px; }
#kernel img { width: 96px; height: 96px; image-rendering: pixelated; border-radius: 4px; }
#kernel figure { margin: 0; display: flex; gap: .8rem; align-items: center; }
footer { display: none !important; }
"""
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


def said(text: str, done: int = 0, total: int = 0) -> str:
    """The status line, which screen readers announce, and a bar of the finished timesteps."""
    bar = f'<progress aria-label="what is finished" value="{done}" max="{total}"></progress>' if total else ""
    return f'<div role="status" aria-live="polite"><p>{escape(text)}</p>{bar}</div>'


def under_way(progress: Progress) -> str:
    """The status while restoring."""
    text = f"Sweep {progress.sweep}: {progress.done} of {progress.total} timesteps final"
    if progress.residual == progress.residual:
        text += f", the image moved by {progress.residual:.3g} grey levels"
    return said(f"{text}.", progress.done, progress.total)


def optimising(iteration: Iteration, total: int) -> str:
    """The status while the noise is optimised toward a reference."""
    count = iteration.number + 1
    text = f"Iteration {count} of {total}: distance to the reference {float(iteration.loss[0]):.3g}."
    return said(text, count, total)


def finished(run: RunRecord) -> str:
    """The status of a restoration that ended."""
    record = run.settings
    losses = record.get("losses", [])
    text = f"Distance to the reference {losses[0]:.3g}, then {min(losses):.3g}. " if losses else ""
    text += (
        f"{'Converged' if record['status'] == 'converged' else Status.MAX_SWEEPS.value.capitalize()}: "
        f"{record['solver']} solver, {record['sweeps']} sweeps, {record['nfe']} network evaluations, "
        f"{record['seconds']:.1f} s."
    )
    if record.get("psnr") is not None and record.get("classical_psnr") is not None:
        text += f" PSNR {record['psnr']:.2f} dB, {record['classical']} {record['classical_psnr']:.2f} dB."
    if "findings" in record:
        text += f" {record['findings']['assumed'].capitalize()}."
    return said(text)


def chart(recorder: Recorder, tolerance: float) -> str:
    """The convergence picture so far; for a serial chain, a sentence."""
    counts = torch.tensor([done for done, _, _ in recorder.counts])
    if not len(counts):
        return "<p>A serial chain goes step by step; choose the solver preconditioned to see a chain converge.</p>"
    residuals = torch.stack(recorder.residuals[: len(counts)])  # the solve goes on meanwhile
    sweeps, steps = residuals.shape
    alt = f"Heat map of {sweeps} sweeps by {steps} states; {int(counts[-1])} states are final."
    return _image(convergence_picture(residuals, counts, tolerance, total=min(steps, ROWS)), alt)


def kernel(name: str, weights: Tensor) -> str:
    """A blur kernel as a small picture; white is its largest weight."""
    scaled = (weights / weights.max() * 255).round().to(torch.uint8)
    enlarged = interpolate(scaled[None, None].float(), (96, 96), mode="nearest")[0].to(torch.uint8)
    height, width = weights.shape
    text = f"{name} kernel, {width} x {height} pixels"
    return f"<figure>{_image(image_picture(enlarged), text)}<figcaption>{escape(text)}</figcaption></figure>"


def _image(png: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{b64encode(png).decode()}">'
