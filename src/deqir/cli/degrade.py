"""``deqir degrade``: make an observation of a photo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deqir.cli import words
from deqir.cli.app import app
from deqir.cli.checks import check_task
from deqir.cli.console import err, out
from deqir.cli.options import (
    Blur,
    BlurWidth,
    Boundary,
    Colorize,
    Downsampling,
    Fading,
    Hidden,
    MadeMask,
    MaskSeed,
    Noise,
    Overwrite,
    Ratio,
    Scale,
    Threshold,
    Weights,
    task_settings,
)
from deqir.cli.words import completed


@app.command(epilog="Example:  deqir degrade photo.jpg --task sr --scale 4 --out small.png")
def degrade(
    photo: Annotated[Path, typer.Argument(readable=False, help="The photo to degrade.")],
    out_file: Annotated[
        Path, typer.Option("--out", "-o", readable=False, help="A .png (16 bits) or .safetensors file.")
    ],
    task: Annotated[
        str,
        typer.Option(
            "--task",
            autocompletion=completed(words.MADE_TASKS),
            help="sr, inpaint, colorize, deblur, denoise, cs, or old-photo with a mask.",
        ),
    ],
    scale: Scale = None,
    downsampling: Downsampling = None,
    mask: MadeMask = None,
    hidden: Hidden = None,
    mask_seed: MaskSeed = None,
    weights: Weights = None,
    blur: Blur = None,
    boundary: Boundary = None,
    threshold: Threshold = None,
    ratio: Ratio = None,
    blur_width: BlurWidth = None,
    colorize: Colorize = None,
    fading: Fading = None,
    noise: Noise = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Make an observation that deqir restore takes; the file carries the settings of its task."""
    settings = task_settings(locals())
    check_task(settings, noise, simulate=True)
    from deqir.jobs import degrade as write_degraded
    from deqir.problems import task_from

    record = write_degraded(photo, out_file, task_from(settings, {}), noise or 0.0, seed, overwrite)
    if record["frames"] > 1:
        err.print(f"deqir: {photo} has {record['frames']} frames or pages; the first one is degraded")
    out.print(f"{photo} -> {out_file}: {record['task']['name']}, shape {tuple(record['shape'])}")
