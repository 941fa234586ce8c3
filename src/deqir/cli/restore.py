"""``deqir restore``: restore photos and observations."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from deqir.cli.app import app
from deqir.cli.console import FAILURE, err, out, progress_line
from deqir.cli.options import (
    AsJson,
    Blur,
    Boundary,
    Config,
    Downsampling,
    DryRun,
    Hidden,
    Mask,
    MaskSeed,
    Noise,
    Overwrite,
    PriorOptions,
    Quiet,
    Ratio,
    Report,
    Scale,
    TaskOption,
    Threshold,
    Weights,
    number_or_word,
    prior_options,
    task_settings,
    timesteps_or_word,
)
from deqir.errors import DeqirError

if TYPE_CHECKING:
    from collections.abc import Callable

    from deqir.jobs import Finished, Record, RestoreJob
    from deqir.restoration import Progress


@app.command(epilog="Example:  deqir restore small.jpg --task sr --scale 4 --out results/")
def restore(
    photos: Annotated[
        list[Path], typer.Argument(help="Photos, observations made by deqir degrade, or folders of them.")
    ],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results (PNG).")],
    task: TaskOption = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="The photos are the truth: degrade, restore and compare with them.")
    ] = False,
    scale: Scale = None,
    downsampling: Downsampling = None,
    mask: Mask = None,
    hidden: Hidden = None,
    mask_seed: MaskSeed = None,
    weights: Weights = None,
    blur: Blur = None,
    boundary: Boundary = None,
    threshold: Threshold = None,
    ratio: Ratio = None,
    noise: Noise = None,
    steps: Annotated[int, typer.Option(help="Timesteps of the chain.")] = 100,
    eta: Annotated[float, typer.Option(help="Fresh noise per step, 0 (deterministic) to 1.")] = 0.85,
    seed: Annotated[int, typer.Option(help="Seed of all noise.")] = 0,
    solver: Annotated[
        str, typer.Option(help="auto, serial, picard, anderson, triangular, preconditioned; auto measures.")
    ] = "auto",
    tolerance: Annotated[float, typer.Option(help="Allowed difference to the serial chain, in grey levels.")] = 0.5,
    max_sweeps: Annotated[
        Optional[int],
        typer.Option(help="Bound on the parallel sweeps (default: the network calls of the serial chain)."),
    ] = None,
    window: Annotated[
        Optional[int], typer.Option(help="Timesteps a parallel sweep hands to the network at most (default: all).")
    ] = None,
    max_batch: Annotated[
        str, typer.Option(help="Bound on the images in one network call, a number or auto: by size and memory.")
    ] = "auto",
    spacing: Annotated[
        str,
        typer.Option(
            help="Choice of timesteps: cubic, quadratic, leading, trailing, uniform (linspace), or a list, 999,800,..."
        ),
    ] = "cubic",
    rule: Annotated[
        str, typer.Option(help="How the observation enters: auto (by its noise), ddnm, ddnm+, diffpir or ddrm.")
    ] = "auto",
    travel_length: Annotated[int, typer.Option(help="Steps that the chain goes back at a time (time travel).")] = 1,
    travel_repeat: Annotated[int, typer.Option(help="Times that it walks them; 1 is no time travel.")] = 1,
    device: Annotated[
        Optional[str], typer.Option(help="cpu, cuda, cuda:1, mps (default: cuda where there is one).")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64, bfloat16 or float16.")] = "float32",
    prior: Annotated[
        str, typer.Option(help="builtin, a diffusers folder, a checkpoint file or a hub id; see deqir priors.")
    ] = "builtin",
    label: Annotated[Optional[int], typer.Option(help="The class, for a class-conditional prior.")] = None,
    guidance: Annotated[
        Optional[float], typer.Option(help="Classifier-free guidance towards the class (default: none).")
    ] = None,
    options: PriorOptions = None,
    stats: Annotated[Optional[Path], typer.Option(help="Write one JSON record per image to this file.")] = None,
    with_report: Report = False,
    overwrite: Overwrite = False,
    config: Config = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Restore photos: super-resolution, inpainting, colourisation, deblurring, denoising, compressed sensing."""
    settings = task_settings(locals())
    loading = {"label": label, "guidance": guidance, **prior_options(options)}
    chain = {
        "steps": steps,
        "eta": eta,
        "solver": solver,
        "tolerance": tolerance,
        "max_sweeps": max_sweeps,
        "window": window,
        "max_batch": number_or_word(max_batch),
        "spacing": timesteps_or_word(spacing),
        "rule": rule,
        "travel_length": travel_length,
        "travel_repeat": travel_repeat,
        "device": device,
        "dtype": dtype,
    }
    given = {"seed": seed, "noise": noise, "simulate": simulate, "overwrite": overwrite}
    job = _make_job(prior, loading, settings, chain, given)
    if with_report:
        from deqir.report import check_drawing

        check_drawing()
    manner = _Manner(with_report, dry_run, quiet or as_json, as_json)
    _run_restore(job, photos, out_dir, None if dry_run else stats, manner)


@dataclass(frozen=True)
class _Manner:
    """How files are restored beside the job: what is written and what is said."""

    report: bool
    dry_run: bool
    quiet: bool
    as_json: bool


def _make_job(
    prior: str, loading: dict[str, Any], settings: dict[str, Any], options: dict[str, Any], given: dict[str, Any]
) -> RestoreJob:
    """The job, its options checked before any file is touched."""
    from deqir import operators
    from deqir.jobs import RestoreJob, checked_noise, task_from
    from deqir.priors import load_prior
    from deqir.restoration import Restorer, resolve_device

    if "name" in settings or given["simulate"]:
        task = task_from(settings, {})
        if given["noise"] is not None or given["simulate"]:
            checked_noise(task, given["noise"] or 0.0)
    resolve_device(options["device"])
    loaded = load_prior(prior, **loading)
    Restorer(loaded, operators.Denoising(), **options)
    return RestoreJob(loaded, settings, options, **given)


def _run_restore(job: RestoreJob, photos: list[Path], out_dir: Path, stats: Path | None, manner: _Manner) -> None:
    from deqir.jobs import make_folder, refuse_existing, targets, write_records

    if stats is not None:
        refuse_existing(stats, job.overwrite)
        make_folder(stats.parent)
    if not manner.dry_run:
        make_folder(out_dir)
    files, records = _expand(photos)
    total = len(files) + len(records)
    try:
        for file, target in zip(files, targets(files, out_dir), strict=True):
            _restore_one(job, file, target, records, manner)
    except KeyboardInterrupt:
        err.print(f"deqir: interrupted after {len(records)} of {total}; what is finished is kept")
        raise
    finally:
        if stats is not None and records:
            write_records(stats, records)
    failures = sum("error" in record for record in records)
    if total > 1 and not manner.quiet:
        done = "could be restored" if manner.dry_run else "restored"
        err.print(f"{total - failures} of {total} {done}, {failures} failed")
    if failures:
        raise typer.Exit(FAILURE)


def _expand(photos: list[Path]) -> tuple[list[Path], list[Record]]:
    """The files that are meant, and a record of failure for every folder without any."""
    from deqir.images import find_images

    files: list[Path] = []
    failed: list[Record] = []
    for photo in photos:
        try:
            files += find_images(photo)
        except DeqirError as error:
            failed.append(_failure(photo, str(error)))
    return files, failed


def _failure(file: Path, sentence: str) -> Record:
    err.print(f"deqir: {sentence}")
    return {"file": str(file), "status": "failed", "error": sentence}


def _restore_one(job: RestoreJob, file: Path, target: Path, records: list[Record], manner: _Manner) -> None:
    """Restore one file, add its record and say how it went; a failure becomes a record with its sentence."""
    try:
        if manner.dry_run:
            records.append(_planned(job, file, target))
        else:
            with nullcontext(_silent) if manner.quiet else progress_line(file.name) as line:
                records.append(_reported(job, file, target, line) if manner.report else job.run(file, target, line))
        if manner.as_json:
            out.print(json.dumps(records[-1], allow_nan=False))
        elif not manner.quiet:
            out.print(_plan(records[-1]) if manner.dry_run else _summary(records[-1], target))
    except DeqirError as error:
        records.append(_failure(file, str(error)))
    except Exception as error:
        if os.environ.get("DEQIR_DEBUG"):
            raise
        cause = (str(error).splitlines() or [""])[0]
        sentence = f"{file}: {type(error).__name__}: {cause}; please report this, DEQIR_DEBUG=1 shows more"
        records.append(_failure(file, sentence))


def _silent(progress: Progress) -> None:
    """No progress line."""


def _planned(job: RestoreJob, file: Path, target: Path) -> Record:
    """What would be done with one file, every check made that needs no network."""
    from deqir.jobs import refuse_existing, refuse_huge

    refuse_existing(target, job.overwrite, file)
    problem = job.problem(file)
    refuse_huge(problem.shape, file)
    problem.task.operator(problem.shape)
    task = {"task": problem.task.name, "task_settings": problem.task.settings()}
    return {"file": str(file), "out": str(target), **task, "shape": list(problem.shape), "noise": problem.noise}


def _plan(record: Record) -> str:
    channels, height, width = record["shape"]
    kind = "grey" if channels == 1 else "colour"
    return f"{record['file']} -> {record['out']}: would restore {record['task']}, {width} x {height} pixels, {kind}"


def _reported(job: RestoreJob, file: Path, target: Path, line: Callable[[Progress], None]) -> Record:
    """Restore one file and write its report beside the result."""
    from deqir.jobs import make_folder, refuse_existing
    from deqir.report import Recorder, report_folder, write_report, write_run

    folder, recorder = report_folder(target), Recorder()
    refuse_existing(folder, job.overwrite)

    def watch(progress: Progress) -> None:
        recorder(progress)
        line(progress)

    def keep(finished: Finished) -> None:
        run = recorder.record(finished)
        make_folder(folder)
        write_run(folder, run)
        write_report(folder, run)

    return job.run(file, target, watch, keep)


def _summary(record: Record, target: Path) -> str:
    line = (
        f"{record['file']} -> {target}: {record['task']}, {record['solver']} ({record['solver_reason']}), "
        f"{record['sweeps']} sweeps, {record['nfe']} network evaluations, {record['seconds']:.1f} s"
    )
    if record["status"] != "converged":
        line += f", {record['status']}"
    if "psnr" in record:
        line += (
            f", PSNR {_decibels(record['psnr'])} ({record['classical']} {_decibels(record['classical_psnr'])}), "
            f"SSIM {record['ssim']:.4f} ({record['classical_ssim']:.4f})"
        )
    return line


def _decibels(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.2f} dB"
