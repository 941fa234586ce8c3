"""``deqir convert``: any checkpoint to a diffusers folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deqir.cli.app import app
from deqir.cli.console import out
from deqir.cli.options import Overwrite, PriorOptions, prior_options


@app.command(epilog="Example:  deqir convert celeba_hq.ckpt --out celeba-hq/")
def convert(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint file, a diffusers folder or a hub id.")],
    folder: Annotated[Path, typer.Option("--out", "-o", readable=False, help="The diffusers folder to write.")],
    options: PriorOptions = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a prior as a diffusers folder with safetensors, which loads again to the same network."""
    given = prior_options(options)
    from deqir.priors import load_prior, save_prior

    prior = load_prior(checkpoint, **given)
    save_prior(prior, folder, overwrite)
    out.print(f"{checkpoint} -> {folder}: {prior.channels} channels, {len(prior.schedule)} timesteps")
