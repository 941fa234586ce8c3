"""Options that several commands take, added to a command by a decorator."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar

import typer

from deqir.cli import words
from deqir.cli.checks import check_task
from deqir.cli.options import (
    Blur,
    BlurWidth,
    Boundary,
    Colorize,
    Downsampling,
    Fading,
    Hidden,
    Mask,
    MaskSeed,
    NoiseOrAuto,
    Overwrite,
    PriorOptions,
    Ratio,
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
from deqir.cli.words import completed

if TYPE_CHECKING:
    from deqir.jobs import RestoreJob
    from deqir.priors import Denoiser

Command = TypeVar("Command", bound=Callable[..., None])
Options = dict[str, tuple[Any, Any]]

SIMULATE = Annotated[bool, typer.Option("--simulate", help="The photo is the truth: degrade it and compare with it.")]

TASK_OPTIONS: Options = {
    "task": (TaskOption, None),
    "simulate": (SIMULATE, False),
    "scale": (Scale, None),
    "downsampling": (Downsampling, None),
    "mask": (Mask, None),
    "hidden": (Hidden, None),
    "mask_seed": (MaskSeed, None),
    "weights": (Weights, None),
    "blur": (Blur, None),
    "boundary": (Boundary, None),
    "threshold": (Threshold, None),
    "ratio": (Ratio, None),
    "blur_width": (BlurWidth, None),
    "colorize": (Colorize, None),
    "fading": (Fading, None),
    "noise": (NoiseOrAuto, None),
}
CHAIN_OPTIONS: Options = {
    "steps": (Annotated[int, typer.Option(help="Timesteps of the chain.")], 50),
    "eta": (Annotated[float, typer.Option(help="Fresh noise per step, 0 (deterministic) to 1.")], 0.0),
    "seed": (Annotated[int, typer.Option(help="Seed of all noise.")], 0),
    "solver": (
        Annotated[
            str,
            typer.Option(
                autocompletion=completed(words.SOLVERS), help="auto, serial or a parallel one, see deqir restore."
            ),
        ],
        "auto",
    ),
    "max_batch": (Annotated[str, typer.Option(help="Bound on the images in one network call, or auto.")], "auto"),
    "spacing": (
        Annotated[
            str, typer.Option(autocompletion=completed(words.SPACINGS), help="Choice of timesteps, see deqir restore.")
        ],
        "cubic",
    ),
    "device": (
        Annotated[
            Optional[str],
            typer.Option(
                autocompletion=completed(words.DEVICES), help="cpu, cuda, mps (default: cuda where there is one)."
            ),
        ],
        None,
    ),
    "dtype": (
        Annotated[
            str, typer.Option(autocompletion=completed(words.DTYPES), help="float32, float64, bfloat16 or float16.")
        ],
        "float32",
    ),
    "prior": (Annotated[str, typer.Option(help="builtin, a folder, a checkpoint or a hub id.")], "builtin"),
    "label": (Annotated[Optional[int], typer.Option(help="The class, for a class-conditional prior.")], None),
    "guidance": (Annotated[Optional[float], typer.Option(help="Classifier-free guidance (default: none).")], None),
    "options": (PriorOptions, None),
    "overwrite": (Overwrite, False),
}


def with_options(*groups: Options) -> Callable[[Command], Command]:
    """Add the options of ``groups`` to a command whose last parameter is ``**shared``, which receives them."""

    def decorate(command: Command) -> Command:
        whole = signature(command, eval_str=True)  # get_type_hints would add an Optional on Python 3.10
        own = [part for part in whole.parameters.values() if part.kind is not Parameter.VAR_KEYWORD]
        added = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for group in groups
            for name, (kind, default) in group.items()
        ]
        command.__signature__ = whole.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        command.__annotations__ = {part.name: part.annotation for part in (*own, *added)}
        return command

    return decorate


def chain_settings(shared: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``Restorer`` among the shared options."""
    names = ("steps", "eta", "solver", "device", "dtype")
    return {name: shared[name] for name in names} | {
        "max_batch": number_or_word(shared["max_batch"]),
        "spacing": timesteps_or_word(shared["spacing"]),
    }


def loaded_prior(shared: dict[str, Any]) -> Denoiser:
    """The prior that the shared options mean."""
    from deqir.priors import load_prior

    loading = {"label": shared["label"], "guidance": shared["guidance"], **prior_options(shared["options"])}
    return load_prior(shared["prior"], **loading)


def restore_job(shared: dict[str, Any]) -> RestoreJob:
    """The job that the shared options mean, checked before any file is touched."""
    from deqir import operators
    from deqir.jobs import RestoreJob
    from deqir.restoration import Restorer, resolve_device

    settings, noise = task_settings(shared), noise_level(shared["noise"])
    check_task(settings, noise, shared["simulate"])
    resolve_device(shared["device"])
    prior, options = loaded_prior(shared), chain_settings(shared)
    Restorer(prior, operators.Denoising(), **options)
    given = {name: shared[name] for name in ("seed", "simulate", "overwrite")}
    return RestoreJob(prior, settings, options, noise=noise, **given)
