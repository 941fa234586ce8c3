"""``deqir invert``: the initial noise that reproduces a photo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from deqir.cli.app import app
from deqir.cli.console import counted, err, out
from deqir.cli.replay import command_settings
from deqir.cli.shared import CHAIN_OPTIONS, chain_settings, loaded_prior, with_options

_OPTIONS = {name: option for name, option in CHAIN_OPTIONS.items() if name not in ("eta", "seed")}


@app.command(epilog="Example:  deqir invert photo.jpg --out inverted/")
@with_options(_OPTIONS)
def invert(
    context: typer.Context,
    photo: Annotated[Path, typer.Argument(readable=False, help="The photo.")],
    out_dir: Annotated[
        Path, typer.Option("--out", "-o", readable=False, help="Folder for the noise and what is made of it.")
    ],
    tolerance: Annotated[float, typer.Option(help="Defects allowed, summed over the chain, in grey levels.")] = 0.05,
    max_sweeps: Annotated[int, typer.Option(help="Bound on the sweeps.")] = 40,
    refinements: Annotated[
        int, typer.Option("--refine", help="Iterations of L-BFGS after the sweeps, toward the photo itself.")
    ] = 0,
    second: Annotated[
        Optional[Path],
        typer.Option("--between", readable=False, help="Another photo of this size: also show what lies between."),
    ] = None,
    frames: Annotated[int, typer.Option(help="Pictures from the one to the other.")] = 7,
    **shared: Any,
) -> None:
    """Find the noise of which the prior's deterministic sampler makes a photo, all timesteps at once."""
    from deqir import operators
    from deqir.noise_jobs import InvertJob
    from deqir.outputs import make_folder
    from deqir.restoration import Restorer

    restorer = Restorer(loaded_prior(shared), operators.Unobserved(), **chain_settings(shared | {"eta": 0.0}))
    job = InvertJob(restorer, tolerance, max_sweeps, shared["overwrite"], refinements, command_settings(context))
    make_folder(out_dir)
    record = job.run(
        photo, out_dir, lambda sweep, defect: err.print(f"sweep {sweep}: {float(defect.max()):.3g} grey levels")
    )
    trip = record["round_trip_psnr"]
    found = "exactly the photo" if trip is None else f"the photo to {trip:.1f} dB"
    cost = f"{counted(record['sweeps'], 'sweep')}, {counted(record['nfe'], 'evaluation')}"
    out.print(f"{photo} -> {out_dir}: the noise makes {found}, {cost}")
    if second is not None:
        strip = out_dir / f"{photo.stem}-to-{second.stem}.png"
        job.between(photo, second, strip, frames)
        out.print(f"{strip}: {frames} pictures from {photo.name} to {second.name}")
