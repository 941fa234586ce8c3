"""``deqir optimize``: improve or steer a restoration by its initial noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from deqir.cli import words
from deqir.cli.app import app
from deqir.cli.console import counted, err, out
from deqir.cli.replay import command_settings
from deqir.cli.shared import CHAIN_OPTIONS, TASK_OPTIONS, restore_job, with_options
from deqir.cli.words import completed

if TYPE_CHECKING:
    from deqir.initialization import Iteration
    from deqir.outputs import Record

INTERRUPTED = 130


@app.command(epilog="Example:  deqir optimize small.jpg --task sr --guide mean -o results/")
@with_options(TASK_OPTIONS, CHAIN_OPTIONS)
def optimize(
    context: typer.Context,
    photo: Annotated[Path, typer.Argument(readable=False, help="The photo or observation.")],
    out_dir: Annotated[Path, typer.Option("--out", "-o", readable=False, help="Folder for the results.")],
    guide: Annotated[
        Optional[str], typer.Option(help="mean (of eight other seeds), or an image of the result's size.")
    ] = None,
    guide_network: Annotated[
        Optional[Path],
        typer.Option(readable=False, help="Weights of a restoration network that spandrel knows; its output guides."),
    ] = None,
    palette: Annotated[Optional[Path], typer.Option(readable=False, help="A photo whose colours are wanted.")] = None,
    below: Annotated[
        Optional[float], typer.Option(help="The guide counts up to this frequency alone, in cycles per pixel.")
    ] = None,
    sharpness: Annotated[
        Optional[float], typer.Option(help="Wanted sharpness as a share of the guide's; 1.25 undoes some of its blur.")
    ] = None,
    guide_weight: Annotated[float, typer.Option(help="Weight of the guide.")] = 1.0,
    palette_weight: Annotated[float, typer.Option(help="Weight of the palette.")] = 1.0,
    perceptual: Annotated[float, typer.Option(help="Weight of the LPIPS distance to the guide.")] = 0.0,
    variation: Annotated[float, typer.Option(help="Weight of total variation.")] = 0.0,
    high_frequencies: Annotated[float, typer.Option(help="Weight of the power at high frequencies.")] = 0.0,
    gaussianity: Annotated[float, typer.Option(help="Weight of keeping the noise Gaussian.")] = 0.0,
    iterations: Annotated[int, typer.Option(help="Iterations at most.")] = 10,
    optimizer: Annotated[
        str, typer.Option(autocompletion=completed(words.OPTIMIZERS), help="adam, lbfgs or spherical.")
    ] = "adam",
    learning_rate: Annotated[Optional[float], typer.Option(help="Its step (default: its usual one).")] = None,
    variables: Annotated[
        str,
        typer.Option(
            autocompletion=completed(words.VARIABLES), help="initial: x_0 alone; all: the noise of every step, too."
        ),
    ] = "initial",
    patience: Annotated[int, typer.Option(help="Iterations without improvement after which it ends.")] = 10,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the noise that an earlier run left.")] = False,
    **shared: Any,
) -> None:
    """Restore a photo, then optimise its initial noise toward a guide, a palette or a smoother image."""
    from deqir.noise_jobs import Aims, OptimizeJob
    from deqir.outputs import make_folder

    aims = Aims(
        guide,
        guide_network,
        palette,
        below,
        guide_weight,
        perceptual,
        palette_weight,
        variation,
        high_frequencies,
        gaussianity,
        sharpness,
    )
    options = {
        "iterations": iterations,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "variables": variables,
        "patience": patience,
    }
    job = OptimizeJob(restore_job(shared), aims, options, command_settings(context))
    make_folder(out_dir)
    record = job.run(photo, out_dir, resume, _tell)
    out.print(_summary(record, out_dir))
    if record["stopped"] == "interrupted":
        err.print("deqir: interrupted; the best so far is kept, --resume goes on")
        raise typer.Exit(INTERRUPTED)


def _tell(iteration: Iteration) -> None:
    terms = ", ".join(f"{name.split('.', 1)[1]} {float(value[0]):.4g}" for name, value in iteration.terms.items())
    head = f"iteration {iteration.number}: loss {float(iteration.loss[0]):.4g} ({terms})"
    err.print(f"{head}, {counted(iteration.sweeps, 'call')}")


def _summary(record: Record, folder: Path) -> str:
    first, best = record["losses"][0], record["losses"][record["best"]]
    line = f"{record['file']} -> {folder}: loss {first:.4g} -> {best:.4g} at iteration {record['best']}"
    if "psnr" in record and None not in (record["psnr"], record["plain_psnr"]):
        line += f", PSNR {record['plain_psnr']:.2f} dB -> {record['psnr']:.2f} dB"
    return f"{line}, stopped: {record['stopped']}"
