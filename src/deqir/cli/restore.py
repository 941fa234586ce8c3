"""``deqir restore``: restore photos and observations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from deqir.cli import words
from deqir.cli.app import app
from deqir.cli.checks import check_task, check_told, checked_files
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
from deqir.cli.single import SingleRun
from deqir.cli.words import completed
from deqir.errors import OptionError
from deqir.version import __version__

UNDECISIVE = ("device", "max_batch", "overwrite")
"""Options that decide how a result is computed, and not what it is."""

if TYPE_CHECKING:
    from deqir.jobs import RestoreJob
    from deqir.report import Overlays


@app.command(epilog="Example:  deqir restore small.jpg --task sr --scale 4 --out results/")
def restore(
    photos: Annotated[
        list[Path],
        typer.Argument(readable=False, help="Photos, observations made by deqir degrade, or folders of them."),
    ],
    out_dir: Annotated[Path, typer.Option("--out", "-o", readable=False, help="Folder for the results.")],
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
        str,
        typer.Option(
            autocompletion=completed(words.SOLVERS),
            help="auto, serial, picard, anderson, triangular, preconditioned; auto measures.",
        ),
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
            autocompletion=completed(words.SPACINGS),
            help="Choice of timesteps: cubic, quadratic, leading, trailing, uniform (linspace), or a list, 999,800,...",
        ),
    ] = "cubic",
    rule: Annotated[
        str,
        typer.Option(
            autocompletion=completed(words.RULES),
            help="How the observation enters: auto (by its noise), ddnm, ddnm+, diffpir or ddrm.",
        ),
    ] = "auto",
    travel_length: Annotated[
        Optional[int], typer.Option(help="Steps that the chain goes back at a time (time travel; 1, old-photo 5).")
    ] = None,
    travel_repeat: Annotated[
        Optional[int], typer.Option(help="Times that it walks them; 1 is no time travel (1, old-photo 2).")
    ] = None,
    average: Annotated[
        float,
        typer.Option(
            help="Average the last estimates, those at noise up to this (white is 1); 0: the last state alone."
        ),
    ] = words.AVERAGE,
    device: Annotated[
        Optional[str],
        typer.Option(
            autocompletion=completed(words.DEVICES), help="cpu, cuda, cuda:1, mps (default: cuda where there is one)."
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(autocompletion=completed(words.DTYPES), help="float32, float64, bfloat16 or float16.")
    ] = "float32",
    prior: Annotated[
        str, typer.Option(help="builtin, a diffusers folder, a checkpoint file or a hub id; see deqir priors.")
    ] = "builtin",
    label: Annotated[Optional[int], typer.Option(help="The class, for a class-conditional prior.")] = None,
    guidance: Annotated[
        Optional[float], typer.Option(help="Classifier-free guidance towards the class (default: none).")
    ] = None,
    options: PriorOptions = None,
    image_format: Annotated[
        str,
        typer.Option(
            "--format", autocompletion=completed(words.FORMATS), help="Of the results: png, jpg, webp or tiff."
        ),
    ] = "png",
    depth: Annotated[
        str,
        typer.Option(
            autocompletion=completed(words.DEPTHS),
            help="Bits per channel of the results: 8, 16 (png and tiff), or auto: as the photo has.",
        ),
    ] = "auto",
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into the subfolders of folders, too.")] = False,
    sequence: Annotated[
        bool, typer.Option("--sequence", help="The photos are frames in order: each starts from the one before.")
    ] = False,
    together: Annotated[
        Optional[int],
        typer.Option(help="Files of one size in a folder that are restored in one batch at most (default: by number)."),
    ] = None,
    shard: Annotated[
        str,
        typer.Option(
            autocompletion=completed(words.SHARDS),
            help="What several processes share (torchrun): files, or the timesteps of each image.",
        ),
    ] = "files",
    stats: Annotated[
        Optional[Path], typer.Option(readable=False, help="Write one JSON record per image to this file.")
    ] = None,
    with_report: Report = False,
    report_sensitivity: ReportSensitivity = None,
    report_uncertainty: ReportUncertainty = None,
    overwrite: Overwrite = False,
    config: Config = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Restore photos: super-resolution, inpainting, colours, deblurring, denoising, compressed sensing, old photos.

    With --task auto deqir finds out what is wrong with a photo.
    """
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
    bits = number_or_word(depth)
    suffix = _suffix(image_format, bits)
    given = {"seed": seed, "noise": noise_level(noise), "simulate": simulate, "overwrite": overwrite, "bits": bits}
    if together is not None and together < 1:
        raise OptionError(f"together is {together}; choose at least 1")
    files, failed = checked_files(photos, recursive, out_dir, stats)
    check_told(settings, given["noise"], simulate, files)
    job = _make_job(prior, loading, settings, chain, given)
    manner = Manner(_overlays(with_report, report_sensitivity, report_uncertainty), dry_run, quiet, as_json)
    if rank.index == 0:
        for record in failed:
            manner.say(record, out_dir)
    if sequence or (rank.count == 1 and not any(photo.is_dir() for photo in photos)):
        SingleRun(out_dir, suffix, None if dry_run else stats, sequence, manner).run(job, files, failed)
    else:
        decisive = _decisive(prior, settings, {**loading, **chain, **given, "format": image_format})
        FolderRun(out_dir, suffix, decisive, rank, together, timesteps, stats, manner).run(job, files, failed)


def _overlays(report: bool, region: str | None, seeds: int | None) -> Overlays | None:
    """What a report shows over its pictures; None where no report is asked for."""
    if not report and region is None and seeds is None:
        return None
    from deqir.report import Overlays, check_drawing
    from deqir.sensitivity import Region

    check_drawing()
    return Overlays(None if region is None else Region.parse(region), seeds)


def _suffix(image_format: str, depth: int | str) -> str:
    """The suffix of the results, once it is known to hold their bit depth."""
    from deqir.images import DEEP_SUFFIXES, FORMATS

    if image_format not in FORMATS:
        raise OptionError(f"format is {image_format!r}; choose one of {', '.join(FORMATS)}")
    if depth not in (8, 16, "auto") or (depth == 16 and FORMATS[image_format] not in DEEP_SUFFIXES):
        raise OptionError(f"depth is {depth} for format {image_format}; choose auto, 8, or 16 with png or tiff")
    return FORMATS[image_format]


def _make_job(
    prior: str, loading: dict[str, Any], settings: dict[str, Any], options: dict[str, Any], given: dict[str, Any]
) -> RestoreJob:
    """The job, its options checked before any file is touched."""
    from deqir import operators
    from deqir.jobs import RestoreJob
    from deqir.priors import load_prior
    from deqir.restoration import Restorer, resolve_device

    check_task(settings, given["noise"], given["simulate"])
    resolve_device(options["device"])
    loaded = load_prior(prior, **loading)
    Restorer(loaded, operators.Denoising(), **options)
    return RestoreJob(loaded, settings, options, origin={"source": prior, **loading}, **given)


def _decisive(prior: str, settings: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """All that decides a result beside the photo, the contents of the files that the options name among it."""
    from deqir.manifest import content_hash

    named = [text for text in (prior, *settings.values()) if isinstance(text, str) and Path(text).exists()]
    try:
        contents = {text: content_hash(Path(text)) for text in named}
    except OSError as error:
        raise OptionError(f"{error.filename} cannot be read ({error.strerror}); change its permissions") from error
    kept = {key: value for key, value in options.items() if key not in UNDECISIVE}
    return {"version": __version__, "prior": prior, "task": settings, "contents": contents, **kept}
