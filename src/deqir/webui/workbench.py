"""What the page does with a request, without the page: preview it, restore it, and say how it goes."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from deqir.defects import DefectDetector
from deqir.demo import PHOTO
from deqir.images import atomic_write, write_image
from deqir.initialization import Iteration
from deqir.jobs import Finished, RestoreJob
from deqir.priors import Denoiser, load_prior
from deqir.report import Recorder, RunRecord, write_report
from deqir.results import Progress
from deqir.tasks import Task
from deqir.webui.guided import Guided
from deqir.webui.photos import read_photo, reduced, stage
from deqir.webui.sessions import Sessions
from deqir.webui.settings import BRUSH_COLOUR, Limits, Settings, refuse_whole
from deqir.webui.solve import Solve, Watch


@dataclass(frozen=True, eq=False)
class Outcome:
    """The files of one restoration: before and after in one size, the result, the settings, the report; its record."""

    before: Path
    after: Path
    result: Path
    settings: Path
    report: Path
    run: RunRecord


@dataclass(frozen=True, eq=False)
class Moment:
    """A restoration under way: its latest progress, or that of an optimisation, and all that was recorded before."""

    progress: Progress | Iteration
    recorder: Recorder
    folder: Path


@dataclass(frozen=True, eq=False)
class Preview:
    """What will be restored, ``image`` (C, h, w) in [0, 1], the ``size`` (H, W) of the result, and what was found."""

    image: Tensor
    size: tuple[int, int]
    found: str = ""


@dataclass(frozen=True, eq=False)
class Workbench:
    """Restores uploads within ``limits``. ``sources`` maps the priors that may be chosen to what loads them."""

    limits: Limits
    sources: Mapping[str, str]
    device: str | None
    sessions: Sessions
    loaded: dict[str, Denoiser] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def bundled_photo(self) -> Path:
        """A copy of the bundled photo where the page may serve it from."""
        copy = self.sessions.root / PHOTO.name
        if not copy.exists():
            shutil.copyfile(PHOTO, copy)
        return copy

    def settings(self, given: Mapping[str, Any]) -> Settings:
        """Checked settings. Raises OptionError."""
        return Settings.checked(given, self.limits, tuple(self.sources))

    def photo(self, path: str | None, settings: Settings) -> Tensor:
        """The upload as it will be restored or, to simulate, degraded, (C, H, W) in [0, 1]."""
        return reduced(read_photo(path, self.limits), settings.photo_side)

    def damage(self, path: str | None, settings: Settings) -> tuple[Tensor, Tensor]:
        """An upload as it will be restored, (C, H, W), and the damage found in it, (1, H, W), 0 there."""
        photo = self.photo(path, settings)
        return photo, DefectDetector().observed(photo[None])[0]

    def preview(self, path: str, settings: Settings) -> Preview:
        """The observation that would be restored, a painted mask left out and detected damage in the brush's colour."""
        photo = self.photo(path, settings)
        if settings.has_brush:
            return Preview(
                photo, Task.from_settings({**settings.task, "mask": "box"}).image_shape(tuple(photo.shape))[1:]
            )
        with TemporaryDirectory(dir=self.sessions.root) as folder:
            file, task = stage(photo, settings, None, Path(folder))
            problem = self._job(settings, task).problem(file)
        is_image = problem.y.ndim == 4 and problem.y.shape[1] in (1, 3)
        shown = (problem.y if is_image else problem.operator.pinv(problem.y))[0].clamp(0, 1)
        if problem.mask is not None:
            shown = torch.where(problem.mask[0] > 0, shown, torch.tensor(BRUSH_COLOUR).view(3, 1, 1))
        return Preview(shown, problem.shape[1:], str(problem.findings.get("assumed", "")))

    def restore(
        self, path: str | None, settings: Settings, mask: Tensor | None, session: str, reference: str | None = None
    ) -> Iterator[Moment | Outcome]:
        """Restore the upload ``path``, toward the upload ``reference`` where there is one: moments, then the outcome.

        Raises DeqirError, or StoppedError by the session.
        """
        stop, folder = self.sessions.begin(session)
        file, task = stage(self.photo(path, settings), settings, mask, folder)
        job, recorder = self._job(settings, task), Recorder()
        guided = None if reference is None else Guided(job, settings, read_photo(reference, self.limits))
        solve = Solve(partial(_work, job, settings, file, recorder, guided), stop)
        for progress in solve:
            yield Moment(progress, recorder, folder)
        yield solve.outcome

    def _job(self, settings: Settings, task: Mapping[str, Any]) -> RestoreJob:
        prior, options = self._prior(settings.prior), settings.options(self.device)
        return RestoreJob(prior, task, options, settings.seed, settings.noise, settings.simulate)

    def _prior(self, name: str) -> Denoiser:
        with self.lock:
            if name not in self.loaded:
                self.loaded[name] = load_prior(self.sources[name])
            return self.loaded[name]


def _work(
    job: RestoreJob, settings: Settings, file: Path, recorder: Recorder, guided: Guided | None, watch: Watch
) -> Outcome:
    """The whole restoration, in the thread of the solve."""
    finished: list[Finished] = []
    folder = file.parent

    def heard(progress: Progress) -> None:
        recorder(progress)
        watch(progress)

    result = folder / "restored.png"
    if guided is None:
        record = job.run(file, result, heard, keep=finished.append)
        refuse_whole(not finished, record.get("findings", {}))
    else:
        finished.append(guided.run(file, result, heard, watch))
    run = recorder.record(finished[0])
    run.settings.pop("mask_file", None)
    run.settings.update(file="photo.png", out=result.name)  # a visitor learns no path of the server
    run.settings["task_settings"] = dict(settings.task)
    report = write_report(folder, run)
    text = json.dumps({"settings": settings.to_json(), "result": run.settings}, indent=2, allow_nan=False) + "\n"
    atomic_write(folder / "settings.json", text.encode())
    before, after = folder / "before.png", folder / "after.png"
    size = (run.pictures["result"].shape[1], run.pictures["result"].shape[2])
    for target, name in ((before, "observation"), (after, "result")):
        write_image(target, _enlarged(run.pictures[name], size))
    return Outcome(before, after, result, folder / "settings.json", report, run)


def _enlarged(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """``picture`` (C, h, w) uint8 in ``size`` (H, W) and colour, its pixels repeated."""
    image = interpolate(picture[None].float() / 255, size, mode="nearest")[0]
    return image if len(image) == 3 else torch.cat([image] * 3)
