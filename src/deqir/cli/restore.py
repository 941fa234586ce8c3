"""``deqir restore``: restore photos and observations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from deqir.cli.app import app
from deqir.cli.console import FAILURE, err
from deqir.cli.folder import FolderRun, checked_shard
from deqir.cli.manner import Manner
from deqir.cli.options import (
    AsJson,
    Blur,
    BlurWidth,
    Boundary,
    Colorize,
    Config,
    Downsampling,
    DryRun,
    Fading,
    Hidden,
    Mask,
    MaskSeed,
    NoiseOrAuto,
    Overwrite,
    PriorOptions,
    Quiet,
    Ratio,
    Report,
    ReportSensitivity,
    ReportUncertainty,
    Scale,
    TaskOption,
    Threshold,
    Weights,
    noise_level,
    number_or_word,
    prior_options,
    task_settings,
    timesteps_or_word,
)
from deqir.cli.termination import interrupts_wait
from deqir.errors import DeqirError, OptionError
from deqir.version import __version__

UNDECISIVE = ("device", "max_batch", "overwrite")
"""Options that decide how a result is computed, and not what it is."""

if TYPE_CHECKING:
    from deqir.items import Item
    from deqir.jobs import RestoreJob, WarmStart
    from deqir.outputs import Record
    from deqir.report import Overlays


@app.command(epilog="Example:  deqir restore small.jpg --task sr --scale 4 --out results/")
def restore(
    photos: Annotated[
        list[Path], typer.Argument(help="Photos, observations made by deqir degrade, or folders of them.")
    ],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")],
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
    blur_width: BlurWidth = None,
    colorize: Colorize = None,
    fading: Fading = None,
    noise: NoiseOrAuto = None,
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
    tile: Annotated[
        str, typer.Option(help="Pixels of the tiles the network sees: a number, none, or auto: large photos in tiles.")
    ] = "auto",
    tile_overlap: Annotated[
        Optional[int], typer.Option(help="Pixels that neighbouring tiles share at least (default: tile / 8).")
    ] = None,
    spacing: Annotated[
        str,
        typer.Option(
            help="Choice of timesteps: cubic, quadratic, leading, trailing, uniform (linspace), or a list, 999,800,..."
        ),
    ] = "cubic",
    rule: Annotated[
        str, typer.Option(help="How the observation enters: auto (by its noise), ddnm, ddnm+, diffpir or ddrm.")
    ] = "auto",
    travel_length: Annotated[
        Optional[int], typer.Option(help="Steps that the chain goes back at a time (time travel; 1, old-photo 5).")
    ] = None,
    travel_repeat: Annotated[
        Optional[int], typer.Option(help="Times that it walks them; 1 is no time travel (1, old-photo 2).")
    ] = None,
    average: Annotated[
        float,
        typer.Option(help="Average the last estimates, those at noise up to this (0..1), as 0.1; 0: the last alone."),
    ] = 0.0,
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
    image_format: Annotated[str, typer.Option("--format", help="Of the results: png, jpg, webp or tiff.")] = "png",
    depth: Annotated[int, typer.Option(help="Bits per channel of the results: 8, or 16 for png and tiff.")] = 8,
    sequence: Annotated[
        bool, typer.Option("--sequence", help="The photos are frames in order: each starts from the one before.")
    ] = False,
    together: Annotated[
        Optional[int],
        typer.Option(help="Files of one size in a folder that are restored in one batch at most (default: by number)."),
    ] = None,
    shard: Annotated[
        str, typer.Option(help="What several processes share (torchrun): files, or the timesteps of each image.")
    ] = "files",
    stats: Annotated[Optional[Path], typer.Option(help="Write one JSON record per image to this file.")] = None,
    with_report: Report = False,
    report_sensitivity: ReportSensitivity = None,
    report_uncertainty: ReportUncertainty = None,
    overwrite: Overwrite = False,
    config: Config = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Restore photos: super-resolution, inpainting, colourisation, deblurring, denoising, compressed sensing."""
    settings = task_settings(locals())
    rank, timesteps = checked_shard(shard, sequence)
    loading = {"label": label, "guidance": guidance, **prior_options(options)}
    chain = {
        "steps": steps,
        "eta": eta,
        "solver": solver,
        "tolerance": tolerance,
        "max_sweeps": max_sweeps,
        "window": window,
        "max_batch": number_or_word(max_batch),
        "tile": None if tile == "none" else number_or_word(tile),
        "tile_overlap": tile_overlap,
        "spacing": timesteps_or_word(spacing),
        "rule": rule,
        "average": average,
        "device": rank.device(device),
        "dtype": dtype,
    }
    travel = {"travel_length": travel_length, "travel_repeat": travel_repeat}
    chain |= {name: value for name, value in travel.items() if value is not None}
    given = {"seed": seed, "noise": noise_level(noise), "simulate": simulate, "overwrite": overwrite, "bits": depth}
    suffix = _suffix(image_format, depth)
    if together is not None and together < 1:
        raise OptionError(f"together is {together}; choose at least 1")
    job = _make_job(prior, loading, settings, chain, given)
    overlays = _overlays(with_report, report_sensitivity, report_uncertainty)
    manner = Manner(overlays, dry_run, quiet, as_json)
    if sequence or (rank.count == 1 and not any(photo.is_dir() for photo in photos)):
        _run_restore(job, photos, _Run(out_dir, None if dry_run else stats, suffix, sequence, manner))
    else:
        decisive = _decisive(prior, settings, {**loading, **chain, **given, "format": image_format})
        _run_folder(FolderRun(out_dir, suffix, decisive, rank, together, timesteps, stats, manner), job, photos)


def _overlays(report: bool, region: str | None, seeds: int | None) -> Overlays | None:
    """What a report shows over its pictures; None where no report is asked for."""
    if not report and region is None and seeds is None:
        return None
    from deqir.report import Overlays, check_drawing
    from deqir.sensitivity import Region

    check_drawing()
    return Overlays(None if region is None else Region.parse(region), seeds)


@dataclass(frozen=True)
class _Run:
    """Where results and records go, and how their files are worked through."""

    out_dir: Path
    stats: Path | None
    suffix: str
    sequence: bool
    manner: Manner


def _suffix(image_format: str, depth: int) -> str:
    """The suffix of the results, once it is known to hold their bit depth."""
    from deqir.images import DEEP_SUFFIXES, FORMATS

    if image_format not in FORMATS:
        raise OptionError(f"format is {image_format!r}; choose one of {', '.join(FORMATS)}")
    if depth not in (8, 16) or (depth == 16 and FORMATS[image_format] not in DEEP_SUFFIXES):
        raise OptionError(f"depth is {depth} for format {image_format}; choose 8, or 16 with png or tiff")
    return FORMATS[image_format]


def _make_job(
    prior: str, loading: dict[str, Any], settings: dict[str, Any], options: dict[str, Any], given: dict[str, Any]
) -> RestoreJob:
    """The job, its options checked before any file is touched."""
    from deqir import operators
    from deqir.jobs import RestoreJob
    from deqir.priors import load_prior
    from deqir.problems import checked_noise, task_from
    from deqir.restoration import Restorer, resolve_device

    if given["noise"] == "auto" and given["simulate"]:
        raise OptionError("simulate adds noise, so it needs its level; give noise a number instead of auto")
    if "name" in settings or given["simulate"]:
        task = task_from(settings, {})
        if given["noise"] != "auto" and (given["noise"] is not None or given["simulate"]):
            checked_noise(task, given["noise"] or 0.0)
    resolve_device(options["device"])
    loaded = load_prior(prior, **loading)
    Restorer(loaded, operators.Denoising(), **options)
    return RestoreJob(loaded, settings, options, origin={"source": prior, **loading}, **given)


def _run_restore(job: RestoreJob, photos: list[Path], run: _Run) -> None:
    from deqir.items import in_order, items
    from deqir.jobs import WarmStart
    from deqir.outputs import make_folder, refuse_existing, write_records

    stats, manner = run.stats, run.manner
    if stats is not None:
        refuse_existing(stats, job.overwrite)
        make_folder(stats.parent)
    if not manner.dry_run:
        make_folder(run.out_dir)
    files, records = _expand(photos)
    warm = WarmStart() if run.sequence else None
    listed = items(in_order(files) if run.sequence else files, run.out_dir, run.suffix)
    total = len(listed) + len(records)
    try:
        for item in listed:
            _restore_one(job, item, records, warm, run.manner)
    except KeyboardInterrupt:
        err.print(f"deqir: interrupted after {len(records)} of {total}; what is finished is kept")
        raise
    finally:
        if stats is not None and records:
            with interrupts_wait():
                write_records(stats, records)
    failures = sum("error" in record for record in records)
    if total > 1 and manner.counts:
        done = "could be restored" if manner.dry_run else "restored"
        err.print(f"{total - failures} of {total} {done}, {failures} failed")
    if failures:
        raise typer.Exit(FAILURE)


def _run_folder(run: FolderRun, job: RestoreJob, photos: list[Path]) -> None:
    from deqir.outputs import make_folder

    if run.manner.dry_run:
        return run.plan(job, *_expand(photos))
    if run.stats is not None:
        make_folder(run.stats.parent)
    make_folder(run.folder)
    run.run(job, *_expand(photos))


def _decisive(prior: str, settings: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """All that decides a result beside the photo, the contents of the files that the options name among it."""
    from deqir.manifest import content_hash

    named = [text for text in (prior, *settings.values()) if isinstance(text, str) and Path(text).exists()]
    contents = {text: content_hash(Path(text)) for text in named}
    kept = {key: value for key, value in options.items() if key not in UNDECISIVE}
    return {"version": __version__, "prior": prior, "task": settings, "contents": contents, **kept}


def _expand(photos: list[Path]) -> tuple[list[Path], list[Record]]:
    """The files that are meant, and a record of failure for every folder without any."""
    from deqir.images import find_images

    files: list[Path] = []
    failed: list[Record] = []
    for photo in photos:
        try:
            files += find_images(photo)
        except DeqirError as error:
            failed.append(_failure(photo, error))
    return files, failed


def _failure(file: Path, error: Exception) -> Record:
    from deqir.records import failure

    record = failure(file, error)
    err.print(f"deqir: {record['error']}")
    return record


def _restore_one(job: RestoreJob, item: Item, records: list[Record], warm: WarmStart | None, manner: Manner) -> None:
    """Restore one item, add its record and say how it went; a failure becomes a record with its sentence."""
    file = item.file
    try:
        records.append(manner.restore(job, item, warm))
    except Exception as error:
        records.append(_failure(file, error))
