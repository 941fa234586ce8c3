"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from deqir.cli import words
from deqir.cli.config import use_config
from deqir.cli.words import completed
from deqir.errors import OptionError

TaskOption = Annotated[
    Optional[str],
    typer.Option(
        "--task",
        autocompletion=completed(words.TASKS),
        help="sr, inpaint, colorize, deblur, denoise, cs, old-photo or auto; a file of deqir degrade has its own.",
    ),
]
Scale = Annotated[Optional[int], typer.Option(help="The factor of magnification: sr (4), old-photo (1).")]
Downsampling = Annotated[
    Optional[str],
    typer.Option(
        autocompletion=completed(words.DOWNSAMPLINGS), help="sr: how the photo was reduced, average or bicubic."
    ),
]
Mask = Annotated[
    Optional[str],
    typer.Option(
        autocompletion=completed(words.MASKS),
        help="inpaint, old-photo: random, box, text, scratches, or an image file, white = keep; old-photo: detect.",
    ),
]
MadeMask = Annotated[
    Optional[str],
    typer.Option(
        "--mask",
        autocompletion=completed(words.MADE_MASKS),
        help="inpaint, old-photo: random, box, text, scratches, or an image file, white = keep.",
    ),
]
Hidden = Annotated[Optional[float], typer.Option(help="inpaint: the hidden fraction of a random mask (0.5).")]
MaskSeed = Annotated[Optional[int], typer.Option(help="inpaint, cs: seed of the random mask or measurement (0).")]
Weights = Annotated[
    Optional[str],
    typer.Option(autocompletion=completed(words.WEIGHTS), help="colorize: how grey was made, mean or luma."),
]
Blur = Annotated[
    Optional[str],
    typer.Option(
        autocompletion=completed(words.BLURS),
        help="deblur: gaussian, uniform, anisotropic, motion, or an image file of the kernel.",
    ),
]
Boundary = Annotated[
    Optional[str],
    typer.Option(
        autocompletion=completed(words.BOUNDARIES),
        help="deblur: beyond the border the photo is circular, reflect, replicate or zero.",
    ),
]
Threshold = Annotated[
    Optional[float],
    typer.Option(help="deblur: frequencies weaker than this share of the strongest count as lost (0.03)."),
]
BlurWidth = Annotated[
    Optional[float],
    typer.Option("--blur-width", help="deblur, auto: standard deviation of a Gaussian blur, in pixels."),
]
Colorize = Annotated[
    Optional[bool], typer.Option("--colorize", help="old-photo: the scan is grey or yellowed; find colours.")
]
Fading = Annotated[
    Optional[str],
    typer.Option(autocompletion=completed(words.FADINGS), help="old-photo: auto, estimated and undone, or none."),
]
Ratio = Annotated[Optional[float], typer.Option(help="cs: measurements per pixel (0.25).")]
Noise = Annotated[
    Optional[float],
    typer.Option(help="Standard deviation of the observation's noise, in units of 0..1; simulate and degrade add it."),
]
Config = Annotated[
    Optional[Path],
    typer.Option(
        "--config",
        callback=use_config,
        is_eager=True,
        readable=False,
        help="Take options from a JSON file: option names, or a record that deqir saved.",
    ),
]
Report = Annotated[bool, typer.Option("--report", help="Write a page with pictures of the solve beside every result.")]
ReportSensitivity = Annotated[
    Optional[str],
    typer.Option(help="With a report: show what decided the region left,top,width,height of the result, in pixels."),
]
ReportUncertainty = Annotated[
    Optional[int], typer.Option(help="With a report: show how far restorations with so many seeds differ.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done; write nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON record a line, as in --stats.")]
NoiseOrAuto = Annotated[
    Optional[str],
    typer.Option(
        "--noise",
        autocompletion=completed(("auto",)),
        help="Standard deviation of the observation's noise, in units of 0..1, or auto: estimated; simulate adds it.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
PriorOptions = Annotated[
    Optional[list[str]],
    typer.Option(
        "--prior-option",
        help="What the checkpoint does not tell, as name=value: num_heads=4, schedule=cosine; repeat for more.",
    ),
]


def task_settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """The task settings that were given on the command line."""
    names = (
        "scale",
        "downsampling",
        "mask",
        "hidden",
        "mask_seed",
        "weights",
        "blur",
        "boundary",
        "threshold",
        "ratio",
        "blur_width",
        "colorize",
        "fading",
    )
    given = {name: arguments[name] for name in names if arguments[name] is not None}
    return given if arguments["task"] is None else {"name": arguments["task"], **given}


def prior_options(texts: list[str] | None) -> dict[str, Any]:
    """The options of ``load_prior`` in ``texts``, each ``name=value``; raises OptionError where one is not."""
    given: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"prior-option is {text!r}; write it as name=value")
        given[name.strip()] = {"true": True, "false": False}.get(value.lower(), number_or_word(value))
    return given


def timesteps_or_word(text: str) -> list[int] | str:
    """The whole numbers that ``text`` lists with commas, else the text itself."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        return text


def noise_level(text: str | None) -> float | Literal["auto"] | None:
    """The level that ``text`` writes, or the word auto. Raises OptionError for anything else."""
    if text is None or text == "auto":
        return "auto" if text else None
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"the noise level is {text!r}; choose a number in units of 0..1, or auto") from None


def number_or_word(text: str) -> int | str:
    """The whole number that ``text`` writes, else the text itself."""
    try:
        return int(text)
    except ValueError:
        return text
