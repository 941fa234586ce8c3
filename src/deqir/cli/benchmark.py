"""``deqir benchmark``: tasks x methods x priors over a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from deqir.cli import words
from deqir.cli.app import app
from deqir.cli.console import FAILURE, err, out, progress_line
from deqir.cli.options import PriorOptions, prior_options, timesteps_or_word
from deqir.cli.words import completed
from deqir.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from deqir.benchmark import Benchmark, Dataset, Outcome, Preset


@app.command(epilog="Example:  deqir benchmark --data photos/ --task sr --method serial,classical")
def benchmark(
    data: Annotated[
        Path, typer.Option("--data", readable=False, help="Folder of images, the truths; subfolders are looked into.")
    ],
    out_dir: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            readable=False,
            help="Folder for runs, images, tables and the plot; continued if it is there.",
        ),
    ] = Path("deqir-benchmark"),
    preset: Annotated[
        Optional[str], typer.Option(help="A published protocol: ddnm-celeba, ddnm-imagenet, ddrm-..., deqir-....")
    ] = None,
    config: Annotated[
        Optional[Path], typer.Option(readable=False, help="A YAML file with the settings; options win over it.")
    ] = None,
    tasks: Annotated[
        Optional[list[str]], typer.Option("--task", help="Such as sr:scale=4,noise=0.05; repeat for more.")
    ] = None,
    methods: Annotated[
        Optional[str],
        typer.Option("--method", help="Solvers, each with a rule or without, and classical: serial,picard:ddrm,..."),
    ] = None,
    prior: Annotated[
        Optional[list[str]], typer.Option(help="builtin, a folder, a checkpoint or a hub id; repeat for more.")
    ] = None,
    options: PriorOptions = None,
    steps: Annotated[
        Optional[str], typer.Option(help="Timesteps of the chains: a number, or several, 20,50,100.")
    ] = None,
    eta: Annotated[Optional[float], typer.Option(help="Fresh noise per step, 0 to 1.")] = None,
    spacing: Annotated[Optional[str], typer.Option(help="Choice of timesteps, as of deqir restore.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Seed of all noise; each image gets its own from it.")] = None,
    fit: Annotated[Optional[str], typer.Option(help="keep, resize (to a square) or crop (the central square).")] = None,
    size: Annotated[Optional[int], typer.Option(help="Pixels a side of that square.")] = None,
    image_list: Annotated[
        Optional[Path],
        typer.Option("--list", readable=False, help="A text file of the images meant, one file name a line."),
    ] = None,
    limit: Annotated[Optional[int], typer.Option(help="At most so many images.")] = None,
    every_image: Annotated[
        bool, typer.Option("--all", help="Take all images of the folder where a preset asks for a list.")
    ] = False,
    masks: Annotated[
        Optional[list[str]],
        typer.Option("--mask", help="A mask of a preset's inpainting, an image file, white = kept; repeat for more."),
    ] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Keep the restored images.")] = True,
    device: Annotated[
        Optional[str],
        typer.Option(
            autocompletion=completed(words.DEVICES), help="cpu, cuda, mps (default: cuda where there is one)."
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(autocompletion=completed(words.DTYPES), help="float32, float64, bfloat16 or float16.")
    ] = "float32",
) -> None:
    """Compare solvers, rules, classical methods and priors on a folder of images; an interrupted run is continued."""
    given: dict[str, Any] = {
        "tasks": tasks,
        "methods": None if methods is None else methods.split(","),
        "priors": prior,
        "steps": _numbers(steps),
        "eta": eta,
        "spacing": None if spacing is None else timesteps_or_word(spacing),
        "seed": seed,
        "fit": fit,
        "size": size,
    }
    from deqir.benchmark import Benchmark, plan_from_settings
    from deqir.benchmark.scores import Scores

    chosen = _preset(preset)
    settings = _settings(chosen, config, masks or []) | {
        key: value for key, value in given.items() if value is not None
    }
    plan = plan_from_settings(settings)
    dataset = _dataset(data, _list_file(data, image_list, every_image, chosen), limit, chosen)
    run = Benchmark(
        plan, dataset, out_dir, Scores.available(), device, dtype,
        prior_options(options), images,
    )  # fmt: skip
    try:
        outcome = run.run(_say, progress_line)
    except KeyboardInterrupt:
        err.print("deqir: interrupted; the same command goes on where it was")
        raise
    _write(run, outcome)
    if outcome.failures:
        raise typer.Exit(FAILURE)


def _say(line: str) -> None:
    if line.startswith("failed"):
        err.print(f"deqir: {line}")
    else:
        out.print(line)


def _numbers(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise OptionError(f"steps is {text!r}; choose whole numbers, such as 20,50,100") from None


def _preset(name: str | None) -> Preset | None:
    from deqir.benchmark import PRESETS

    if name is not None and name not in PRESETS:
        raise OptionError(f"preset is {name!r}; choose one of {', '.join(PRESETS)}")
    return None if name is None else PRESETS[name]


def _settings(preset: Preset | None, config: Path | None, masks: list[str]) -> dict[str, Any]:
    """The settings of the preset or the file."""
    from deqir.benchmark import read_plan

    if preset is not None and config is not None:
        raise OptionError("preset and config are both given; choose one, options change either")
    if masks and (preset is None or not preset.masked):
        raise OptionError("mask is for presets that inpaint; write --task inpaint:mask=FILE instead")
    if preset is None:
        return {} if config is None else read_plan(config)
    if preset.masked and not masks:
        err.print("deqir: the preset's inpainting is left out; give its mask file with --mask")
    return preset.plan_settings(masks)


def _list_file(data: Path, image_list: Path | None, every_image: bool, preset: Preset | None) -> Path | None:
    """The list that is named, else the preset's, which has to be there; None for all images."""
    if image_list is not None and every_image:
        raise OptionError("list and all are both given; choose one")
    if image_list is not None or every_image or preset is None or preset.list_name is None:
        return image_list
    listed = data / preset.list_name
    if not listed.is_file():
        raise OptionError(
            f"the preset's list {listed} is not there; put it there, name one with --list, or take every image "
            "of the folder with --all"
        )
    return listed


def _dataset(data: Path, listed: Path | None, limit: int | None, preset: Preset | None) -> Dataset:
    """The images that the list names, or all; of these those that the preset takes."""
    from deqir.benchmark import Dataset
    from deqir.benchmark.dataset import read_list

    every = 1 if preset is None else preset.every
    return Dataset(data, None if listed is None else read_list(listed), every, limit)


def _write(run: Benchmark, outcome: Outcome) -> None:
    """Tables and plot, and where they are."""
    from deqir.benchmark import summarise, write_tables
    from deqir.benchmark.plots import draw_pareto
    from deqir.benchmark.tables import TITLES, markdown

    rows = summarise(outcome.records, len(run.dataset.names()), run.distributions(outcome))
    absent = run.scores.absent
    for name, reason in absent.items():
        err.print(f"deqir: {TITLES[name]} is left out: {reason}")
    write_tables(run.out, rows, absent, outcome.failures)
    try:
        draw_pareto(run.out / "pareto.png", rows)
    except MissingExtraError as error:
        err.print(f"deqir: {error}")
    out.print(markdown(rows, {}))
    out.print(f"{outcome.fresh} runs, {len(outcome.failures)} failed; tables and plot are in {run.out}")
