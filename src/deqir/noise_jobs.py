"""Files in, files out, for what gradients are for: optimise the noise, invert a photo, explain a region."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqir.errors import ImageReadError, OptionError, ShapeError
from deqir.guides import mean_guide, network_guide
from deqir.images import atomic_write, read_image, write_image
from deqir.initialization import (
    Iteration,
    NoiseOptimizer,
    OptimizationState,
    OptimizedRestoration,
    WeightedLosses,
)
from deqir.inversion import Inversion, generate, interpolate, invert, refine
from deqir.jobs import RestoreJob
from deqir.losses import (
    Distance,
    Gaussianity,
    HighFrequencyEnergy,
    Loss,
    PaletteDistance,
    Perceptual,
    Sharpness,
    TotalVariation,
)
from deqir.outputs import Record, file_hash, refuse_existing, refuse_huge
from deqir.overlays import outlined
from deqir.problems import Problem
from deqir.records import finite_or_none, scores
from deqir.restoration import Restorer, resolve_device
from deqir.sensitivity import Region, explain, uncertainty
from deqir.sheet import Picture, draw_sheet
from deqir.version import __version__

MEAN = "mean"
MEAN_BELOW = 0.2
"""Cycles per pixel up to which the mean of restorations guides: beyond, it is blurred."""
SHARPNESS_WEIGHT = 3e-3
"""Large beside a distance of 1e-4, so that the wanted sharpness is reached whatever the guide's distance."""
FRAMES = 8
CAPTION = 110
"""Pixels that the captions of a sheet take."""


@dataclass(frozen=True)
class Aims:
    """What noise is optimised for: a guide (``mean``, or an image file), a guide network, a palette, and weights.

    ``below`` bounds the frequencies in which the guide counts (None: all, but for ``mean``). Terms of weight 0 are left
    out. Raises OptionError where nothing is aimed for.
    """

    guide: str | None = None
    guide_network: Path | None = None
    palette: Path | None = None
    below: float | None = None
    guide_weight: float = 1.0
    perceptual: float = 0.0
    palette_weight: float = 1.0
    variation: float = 0.0
    high_frequencies: float = 0.0
    gaussianity: float = 0.0
    sharpness: float | None = None

    def __post_init__(self) -> None:
        if self.guide is not None and self.guide_network is not None:
            raise OptionError("both a guide and a guide network are given; choose one of them")
        aims = (self.guide, self.guide_network, self.palette)
        if not any(aim is not None for aim in aims) and not (self.variation or self.high_frequencies):
            raise OptionError(
                "nothing to optimise for; give --guide, --guide-network, --palette, --variation or --high-frequencies"
            )

    def losses(self, restorer: Restorer, problem: Problem) -> WeightedLosses:
        """The weighted losses for one problem."""
        terms: list[tuple[float, Loss]] = []
        guide = self._guide(restorer, problem)
        if guide is not None:
            below = MEAN_BELOW if self.guide == MEAN and self.below is None else self.below
            terms.append((self.guide_weight, Distance(guide, below=below)))
            if self.sharpness is not None:
                terms.append((SHARPNESS_WEIGHT, Sharpness(guide, self.sharpness)))
            if self.perceptual:
                terms.append((self.perceptual, Perceptual(guide)))
        if self.palette is not None:
            terms.append((self.palette_weight, PaletteDistance(read_image(self.palette)[None])))
        others = (
            (self.variation, TotalVariation()),
            (self.high_frequencies, HighFrequencyEnergy()),
            (self.gaussianity, Gaussianity()),
        )
        return terms + [(weight, loss) for weight, loss in others if weight]

    def _guide(self, restorer: Restorer, problem: Problem) -> Tensor | None:
        if self.guide_network is not None:
            return network_guide(self.guide_network, problem.y, problem.shape[1:])
        if self.guide is None:
            return None
        if self.guide == MEAN:
            return mean_guide(restorer, problem.y)
        image = read_image(self.guide)[None]
        if image.shape[-2:] != problem.shape[1:]:
            height, width = problem.shape[1:]
            raise ShapeError(
                f"the guide {self.guide} is {image.shape[-1]} x {image.shape[-2]} pixels but the restored image "
                f"{width} x {height}; make them the same size"
            )
        return image if image.shape[1] == problem.shape[0] else image.mean(1, keepdim=True)


@dataclass(frozen=True)
class OptimizeJob:
    """Optimises the initial noise of one file at a time; ``options`` are those of ``NoiseOptimizer``.

    ``about`` is added to every record, as in the other jobs of this module.
    """

    job: RestoreJob
    aims: Aims
    options: dict[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def run(
        self, file: Path, folder: Path, resume: bool = False, progress: Callable[[Iteration], None] | None = None
    ) -> Record:
        """Write the result, a strip of its making, the optimised noise and a record into ``folder``; return the record.

        With ``resume`` it goes on from the noise that an earlier run left there. Raises DeqirError.
        """
        target, strip, saved, record_file = (
            folder / f"{file.stem}{end}" for end in (".png", "-strip.png", "-noise.safetensors", ".json")
        )
        for path in (target, strip, saved, record_file):
            refuse_existing(path, self.job.overwrite or resume, file)
        state = read_state(saved) if resume else None
        problem = self.job.problem(file)
        refuse_huge(problem.shape, file)
        restorer = self.job.restorer(problem)
        search = NoiseOptimizer(restorer, self.aims.losses(restorer, problem), **self.options)
        frames: list[tuple[int, Tensor, float]] = []

        def watch(iteration: Iteration) -> None:
            frames.append((iteration.number, iteration.image[:1].cpu(), float(iteration.loss[0])))
            if progress is not None:
                progress(iteration)

        found = search.run(problem.y, self.job.seed, watch, state)
        write_image(target, found.image[0], attachments=problem.attachments)
        write_state(saved, found.state)
        if frames:
            write_image(strip, film_strip(frames, found))
        record = {**self._record(file, problem, restorer, found), **self.about}
        return write_record(record_file, record, file, (target, strip, saved))

    def _record(self, file: Path, problem: Problem, restorer: Restorer, found: OptimizedRestoration) -> Record:
        losses = [finite_or_none(float(value)) for value in found.losses[:, 0]]
        record = base_record(file, problem, restorer, self.job) | {
            "aims": {key: str(value) for key, value in vars(self.aims).items() if value},
            **self.options,
            "stopped": found.stopped,
            "losses": losses,
            "best": int(found.best[0]),
            "measurement_error": float(found.restoration.measurement_error[0]),
        }
        if problem.truth is not None:
            plain = restorer.restore(problem.y, self.job.seed).image.cpu()
            record |= scores(problem, found.image.cpu())
            record |= {
                f"plain_{key}": value for key, value in scores(problem, plain).items() if key in ("psnr", "ssim")
            }
        return record


def film_strip(frames: list[tuple[int, Tensor, float]], found: OptimizedRestoration) -> Tensor:
    """At most ``FRAMES`` of the images on the way, evenly chosen, and the best, in one row."""
    chosen = sorted({round(k * (len(frames) - 1) / max(1, FRAMES - 1)) for k in range(FRAMES)})
    pictures = [Picture(f"iteration {frames[k][0]}", frames[k][1], f"loss {frames[k][2]:.3g}") for k in chosen]
    best = found.losses[:, 0].nan_to_num(torch.inf).min()
    row = [*pictures, Picture("best", found.image[:1].cpu(), f"loss {float(best):.3g}")]
    return draw_sheet([row], zoom=zoom_for(found.image))


def zoom_for(image: Tensor) -> int:
    """How often a picture (..., H, W) is enlarged so that its captions have room."""
    return max(1, -(-CAPTION // image.shape[-1]))


@dataclass(frozen=True)
class InvertJob:
    """Inverts photos with the prior of ``restorer``, whose operator does not matter.

    ``refinements`` iterations of optimisation follow, where that is above 0.
    """

    restorer: Restorer
    tolerance: float = 0.05
    max_sweeps: int = 40
    overwrite: bool = False
    refinements: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)

    def run(self, file: Path, folder: Path, progress: Callable[[int, Tensor], None] | None = None) -> Record:
        """Write the noise, the image made of it and a record into ``folder``; return the record. Raises DeqirError."""
        paths = [folder / f"{file.stem}{end}" for end in (".png", "-noise.safetensors", ".json")]
        for path in paths:
            refuse_existing(path, self.overwrite, file)
        found = self.invert(file, progress)
        write_image(paths[0], found.image[0])
        atomic_write(paths[1], _safetensors({"noise": found.noise}))
        record: Record = {
            "file": str(file),
            "steps": self.restorer.steps,
            "spacing": self.restorer.spacing,
            "prior": self.restorer.prior.name,
            "round_trip_psnr": finite_or_none(float(found.round_trip[0])),
            "sweeps": found.sweeps,
            "nfe": found.nfe[0],
            "defects": [float(value) for value in found.defects[:, 0]],
            "refinements": self.refinements,
            "tolerance": self.tolerance,
            "noise_std": float(found.noise.std()),
            "version": __version__,
        }
        return write_record(paths[2], {**record, **self.about}, file, paths[:2])

    def invert(self, file: Path, progress: Callable[[int, Tensor], None] | None = None) -> Inversion:
        """The inversion of one file; a grey photo is taken as three equal channels where the prior has them."""
        image = read_image(file)[None]
        channels = self.restorer.prior.channels
        image = image.expand(-1, channels, -1, -1) if image.shape[1] == 1 else image
        found = invert(self.restorer, image, self.tolerance, self.max_sweeps, progress)
        if self.refinements == 0:
            return found
        refined = refine(self.restorer, image, found.noise, self.refinements)
        return replace(found, noise=refined.noise, image=refined.image, round_trip=refined.round_trip)

    def between(self, first: Path, second: Path, target: Path, frames: int) -> None:
        """Write a strip of ``frames`` images of the noises between those of two photos of one size."""
        if frames < 2:
            raise OptionError(f"frames is {frames}; choose at least 2")
        refuse_existing(target, self.overwrite, first)
        noises = [self.invert(file).noise for file in (first, second)]
        if noises[0].shape != noises[1].shape:
            raise ShapeError(f"{first} and {second} differ in size; interpolation needs photos of one size")
        weights = torch.linspace(0, 1, frames)
        images = generate(self.restorer, interpolate(noises[0], noises[1], weights)).cpu()
        row = [Picture(f"{float(weight):.2f}", image[None]) for weight, image in zip(weights, images, strict=True)]
        write_image(target, draw_sheet([row], zoom_for(images)))


@dataclass(frozen=True)
class ExplainJob:
    """Says what decided a region of a restoration, and how sure all of it is."""

    job: RestoreJob
    region: Region
    probes: int = 8
    seeds: int = 8
    about: Mapping[str, Any] = field(default_factory=dict)

    def run(self, file: Path, folder: Path) -> Record:
        """Write the maps as overlays, their numbers and a record into ``folder``; return the record. Raises DeqirError.

        ``-decided.png``: over the observation, where a change moves the region most; ``-noise.png``: the same over the
        initial noise; ``-spread.png``: the standard deviation over ``seeds`` restorations; ``-maps.safetensors``: all.
        """
        ends = (".png", "-decided.png", "-noise.png", "-spread.png", "-maps.safetensors", ".json")
        paths = [folder / f"{file.stem}{end}" for end in ends]
        for path in paths:
            refuse_existing(path, self.job.overwrite, file)
        problem = self.job.problem(file)
        refuse_huge(problem.shape, file)
        restorer = self.job.restorer(problem)
        mask = self.region.mask(problem.shape[1:])
        found = explain(restorer, problem.y, mask, self.job.seed, self.probes)
        spread = uncertainty(restorer, problem.y, self.seeds, self.job.seed)
        image, decided, noise = found.image.cpu(), found.observation.cpu(), found.noise.cpu()
        write_image(paths[0], outlined(image.expand(3, *image.shape[1:]), mask))
        over_observation = found.over_observation(problem.y, mask)
        if over_observation is not None:
            write_image(paths[1], over_observation)
        write_image(paths[2], found.over_image(mask))
        write_image(paths[3], outlined(spread.over_image(image), mask))
        maps = {"observation": decided, "noise": noise, "spread": spread.spread.cpu(), "mean": spread.mean.cpu()}
        atomic_write(paths[4], _safetensors(maps))
        record = base_record(file, problem, restorer, self.job) | {
            "region": str(self.region),
            "probes": self.probes,
            "seeds": self.seeds,
            "region_spread": float((spread.level * mask).sum() / mask.sum()),
            "image_spread": float(spread.level.mean()),
            "strongest_observed": float(decided.max()),
            "strongest_noise": float(noise.max()),
        }
        return write_record(paths[5], {**record, **self.about}, file, paths[:5])


def base_record(file: Path, problem: Problem, restorer: Restorer, job: RestoreJob) -> Record:
    """What every record of this module holds."""
    return {
        "file": str(file),
        "task": problem.task.name,
        "task_settings": problem.task.settings(),
        "steps": restorer.steps,
        "eta": restorer.eta,
        "noise": problem.noise,
        "spacing": restorer.spacing,
        "solver": str(restorer.solver),
        "tolerance": restorer.tolerance,
        "seed": job.seed,
        "prior": job.prior.name,
        "device": str(resolve_device(restorer.device)),
        "version": __version__,
    }


def write_record(path: Path, record: Record, file: Path, outputs: Sequence[Path]) -> Record:
    """Write ``record`` as JSON, whole or not at all, with the hashes of ``file`` and of ``outputs``; return it so."""
    hashes = {output.name: file_hash(output) for output in outputs if output.exists()}
    record = {**record, "file_sha256": file_hash(file), "outputs": hashes}
    atomic_write(path, (json.dumps(record, indent=2, allow_nan=False, default=str) + "\n").encode())
    return record


def write_state(path: Path, state: OptimizationState) -> None:
    """Write what a later run can go on from, whole or not at all."""
    atomic_write(path, _safetensors(state.tensors()))


def read_state(path: Path) -> OptimizationState:
    """Read what ``write_state`` wrote. Raises ImageReadError where there is nothing of the kind."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ImageReadError(f"there is no {path} to go on from; leave --resume out")
    try:
        return OptimizationState.from_tensors(load_file(path))
    except (SafetensorError, OSError) as error:
        raise ImageReadError(f"{path} is not readable ({error}); leave --resume out to start again") from None


def _safetensors(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()})
