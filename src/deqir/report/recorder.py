"""A progress listener that remembers what the report of a run shows."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from deqir.jobs import Finished
from deqir.report.estimates import clean_estimates, seconds_per_call
from deqir.report.overlays import Overlays
from deqir.report.run import RunRecord
from deqir.results import Progress

PICTURE_SIDE, THUMBNAIL_SIDE = 768, 128
STATES_SHOWN = 8


class Recorder:
    """Listens to the progress of one image's restoration, then turns what it heard into a ``RunRecord``.

    Thumbnails of the image are kept after sweeps 1, 2, 3, 4, 6, 8, 12, 16, ... and after the last one, and
    ``STATES_SHOWN`` states as they ended. ``overlays``: which maps are wanted over the pictures; the first report
    raises OptionError where they do not fit the image.
    """

    def __init__(self, overlays: Overlays | None = None) -> None:
        self.overlays = overlays or Overlays()
        self.started = time.perf_counter()
        self.residuals: list[Tensor] = []
        self.counts: list[tuple[int, int, float]] = []
        self.frames: dict[int, Tensor] = {}
        self.states: dict[int, Tensor] = {}

    def __call__(self, progress: Progress) -> None:
        """Take one report in."""
        self.overlays.check((progress.image.shape[-2], progress.image.shape[-1]))
        if progress.states is not None:
            self._keep_states(progress.states[:, :1], progress.first, progress.total)
        if progress.residuals is None:
            return
        self.residuals.append(progress.residuals[:, 0].float())
        self.counts.append((progress.done, progress.nfe, time.perf_counter() - self.started))
        previous = next(reversed(self.frames), 1)
        if not _is_frame(previous):
            del self.frames[previous]
        self.frames[progress.sweep] = thumbnails(progress.image[:1])

    def _keep_states(self, states: Tensor, first: int, total: int) -> None:
        """Copy those of ``states`` (N, 1, C, H, W), the first of which has the number ``first``, that are shown."""
        for number in shown_states(total):
            if first <= number < first + len(states):
                self.states[number] = states[number - first].to("cpu", copy=True)

    def record(self, finished: Finished) -> RunRecord:
        """All that a report of ``finished`` needs.

        The network sees the shown states once more; for a parallel solve, one call is timed twice.
        """
        settings = {**finished.record, "shape": list(finished.problem.shape)}
        chain = finished.restorer.chain(finished.problem.y)
        timesteps = chain.step.levels.timesteps
        steps = len(timesteps)
        if self.residuals:
            settings["serial_seconds"] = steps * seconds_per_call(chain)
        overlays, settings["overlays"] = self.overlays.draw(finished)
        done, nfe, seconds = zip(*self.counts, strict=True) if self.counts else ((), (), ())
        states = {number: self.states[number] for number in shown_states(steps)}
        return RunRecord(
            settings=settings,
            timesteps=timesteps,
            residuals=torch.stack(self.residuals) if self.residuals else torch.empty(0, steps),
            finished=torch.tensor(done, dtype=torch.long),
            nfe=torch.tensor(nfe, dtype=torch.long),
            seconds=torch.tensor(seconds, dtype=torch.float64),
            film=torch.cat(list(self.frames.values())) if self.frames else torch.empty(0, 3, 1, 1, dtype=torch.uint8),
            film_sweeps=torch.tensor(list(self.frames), dtype=torch.long),
            states=thumbnails((torch.cat(list(states.values())) + 1) / 2),
            estimates=thumbnails((clean_estimates(chain, states) + 1) / 2),
            state_numbers=torch.tensor(list(states)),
            pictures={name: thumbnails(image, PICTURE_SIDE)[0] for name, image in _pictures(finished).items()},
            overlays={name: thumbnails(image[None], PICTURE_SIDE)[0] for name, image in overlays.items()},
            difference=_difference(finished),
        )


def shown_states(steps: int) -> list[int]:
    """The numbers, from 1 to ``steps``, of the states that a report shows; the last is the restored image."""
    count = min(steps, STATES_SHOWN)
    return [round(1 + (steps - 1) * i / max(1, count - 1)) for i in range(count - 1)] + [steps]


def thumbnails(images: Tensor, side: int = THUMBNAIL_SIDE) -> Tensor:
    """Images (N, C, H, W) in [0, 1] as uint8, their longer side reduced to ``side`` pixels where it is larger."""
    return _bytes(_reduced(images, side))


def _is_frame(sweep: int) -> bool:
    half = sweep // 3 if sweep % 3 == 0 else sweep
    return half & (half - 1) == 0


def _reduced(images: Tensor, side: int) -> Tensor:
    """Images (N, C, H, W) whose longer side is at most ``side`` pixels, by averaging areas."""
    height, width = images.shape[-2:]
    factor = side / max(height, width)
    if factor >= 1:
        return images
    return interpolate(images.float(), (max(1, round(height * factor)), max(1, round(width * factor))), mode="area")


def _bytes(images: Tensor) -> Tensor:
    return (images.float().nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def _pictures(finished: Finished) -> dict[str, Tensor]:
    """Observation, result and truth, (1, C, H, W); what is no image is shown as A+ y."""
    problem, result = finished.problem, finished.result
    is_image = problem.y.ndim == 4 and problem.y.shape[1] in (1, 3)
    shown = {"observation": problem.y if is_image else _pinv(finished), "result": result.image}
    return shown if problem.truth is None else {**shown, "truth": problem.truth}


def _pinv(finished: Finished) -> Tensor:
    return finished.restorer.operator.pinv(finished.problem.y)


def _difference(finished: Finished) -> Tensor:
    """The distance of the result to the truth, else to A+ y, in grey levels, the mean over colours, (h, w)."""
    image, truth = finished.result.image.cpu().clamp(0, 1), finished.problem.truth
    other = (_pinv(finished) if truth is None else truth).cpu().clamp(0, 1)
    return _reduced((image - other).abs().mean(1, keepdim=True).float() * 255, PICTURE_SIDE)[0, 0]
