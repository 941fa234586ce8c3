"""``deqir explain``: what decided a region of a restoration, and how sure it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from deqir.cli.app import app
from deqir.cli.console import out
from deqir.cli.replay import command_settings
from deqir.cli.shared import CHAIN_OPTIONS, TASK_OPTIONS, restore_job, with_options


@app.command(epilog="Example:  deqir explain small.jpg --task sr --region 0,0,8,8 --out why/")
@with_options(TASK_OPTIONS, CHAIN_OPTIONS)
def explain(
    context: typer.Context,
    photo: Annotated[Path, typer.Argument(readable=False, help="The photo or observation.")],
    region: Annotated[str, typer.Option(help="left,top,width,height in pixels of the restored image.")],
    out_dir: Annotated[Path, typer.Option("--out", "-o", readable=False, help="Folder for the maps.")],
    probes: Annotated[int, typer.Option(help="Random probes of the region; more are more exact.")] = 8,
    seeds: Annotated[int, typer.Option(help="Restorations for the spread.")] = 8,
    **shared: Any,
) -> None:
    """Show which observed pixels and which noise decided a region, and where restorations differ between seeds."""
    from deqir.noise_jobs import ExplainJob
    from deqir.outputs import make_folder
    from deqir.sensitivity import Region

    job = ExplainJob(restore_job(shared), Region.parse(region), probes, seeds, command_settings(context))
    make_folder(out_dir)
    record = job.run(photo, out_dir)
    out.print(
        f"{photo} -> {out_dir}: standard deviation between seeds {record['region_spread']:.3f} in the region, "
        f"{record['image_spread']:.3f} in the image (0..1)"
    )
