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

from deqir.demo import PHOTO
from deqir.images import atomic_write, write_image
from deqir.jobs import Finished, RestoreJob
from deqir.priors import Denoiser, load_prior
from deqir.report import Recorder, RunRecord, write_report
from deqir.results import Progress
from deqir.webui.photos import read_photo, reduced, stage
from deqir.webui.sessions import Sessions
from deqir.webui.settings import Limits, Settings
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
    """A restoration under way: its latest progress and all that was recorded before."""

    progress: Progress
    recorder: Recorder
    folder: Path


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

    def preview(self, path: str, settings: Settings) -> tuple[Tensor, tuple[int, int]]:
        """The observation that would be restored, (C, H, W) in [0, 1], a painted mask left out; the result's (H, W)."""
        photo = self.photo(path, settings)
        if settings.has_brush:
            return photo, (photo.shape[1], photo.shape[2])
        with TemporaryDirectory(dir=self.sessions.root) as folder:
            file, task = stage(photo, settings, None, Path(folder))
            problem = self._job(settings, task).problem(file)
        is_image = problem.y.ndim == 4 and problem.y.shape[1] in (1, 3)
        shown = problem.y if is_image else problem.operator.pinv(problem.y)
        return shown[0].clamp(0, 1), problem.shape[1:]

    def restore(
        self, path: str | None, settings: Settings, mask: Tensor | None, session: str
    ) -> Iterator[Moment | Outcome]:
        """Restore the upload ``path``: moments, then the outcome. Raises DeqirError, or StoppedError by the session."""
        stop, folder = self.sessions.begin(session)
        file, task = stage(self.photo(path, settings), settings, mask, folder)
        job, recorder = self._job(settings, task), Recorder()
        solve = Solve(partial(_work, job, settings, file, folder, recorder), stop)
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


def _work(job: RestoreJob, settings: Settings, file: Path, folder: Path, recorder: Recorder, watch: Watch) -> Outcome:
    """The whole restoration, in the thread of the solve."""
    finished: list[Finished] = []

    def heard(progress: Progress) -> None:
        recorder(progress)
        watch(progress)

    result = folder / "restored.png"
    job.run(file, result, heard, keep=finished.append)
    run = recorder.record(finished[0])
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
