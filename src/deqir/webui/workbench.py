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
from deqir.demo import OLD_PHOTO, PHOTO
from deqir.images import atomic_write, write_image
from deqir.initialization import Iteration
from deqir.jobs import Finished, RestoreJob
from deqir.priors import Denoiser, load_prior
from deqir.report import Recorder, RunRecord, write_report
from deqir.results import Progress
from deqir.tasks import Task
from deqir.webui.guided import Guided
from deqir.webui.photos import read_photo, reduced, stage, stem_of
from deqir.webui.sessions import Sessions
from deqir.webui.settings import BRUSH_COLOUR, Limits, Settings, refuse_whole
from deqir.webui.solve import Solve, Watch
from deqir.webui.trail import Trail


@dataclass(frozen=True, eq=False)
class Outcome:
    """The files of one restoration and its record.

    Before and after in one size, the result, the settings, the mask that was drawn (None without), the report.
    """

    before: Path
    after: Path
    result: Path
    settings: Path
    mask: Path | None
    report: Path
    run: RunRecord


@dataclass(frozen=True, eq=False)
class Moment:
    """A restoration under way: its latest progress, or that of an optimisation, and all that was recorded before."""

    progress: Progress | Iteration
    recorder: Recorder
    trail: Trail


@dataclass(frozen=True, eq=False)
class Preview:
    """What will be restored, ``image`` (C, h, w) in [0, 1], and what is known of it.

    The ``size`` (H, W) of the result, of the ``upload`` and of the photo that it was ``reduced`` to; what was ``found``
    in it, and whether there is nothing to restore.
    """

    image: Tensor
    size: tuple[int, int]
    upload: tuple[int, int]
    reduced: tuple[int, int]
    found: str = ""
    leave_alone: bool = False


@dataclass(frozen=True, eq=False)
class Workbench:
    """Restores uploads within ``limits``. ``sources`` maps the priors that may be chosen to what loads them."""

    limits: Limits
    sources: Mapping[str, str]
    device: str | None
    sessions: Sessions
    loaded: dict[str, Denoiser] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bundled_photo(self, task: str) -> Path:
        """A copy of the bundled photo, or for ``old-photo`` of the bundled scan, where the page may serve it from."""
        source = OLD_PHOTO if task == "old-photo" else PHOTO
        copy = self.sessions.root / source.name
        if not copy.exists():
            shutil.copyfile(source, copy)
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
        upload = read_photo(path, self.limits)
        photo = reduced(upload, settings.photo_side)
        sizes = (upload.shape[1], upload.shape[2]), (photo.shape[1], photo.shape[2])
        if settings.has_brush:
            size = Task.from_settings({**settings.task, "mask": "box"}).image_shape(tuple(photo.shape))[1:]
            return Preview(photo, size, *sizes)
        with TemporaryDirectory(dir=self.sessions.root) as folder:
            file, task = stage(photo, settings, None, Path(folder))
            problem = self._job(settings, task).problem(file)
        is_image = problem.y.ndim == 4 and problem.y.shape[1] in (1, 3)
        shown = (problem.y if is_image else problem.operator.pinv(problem.y))[0].clamp(0, 1)
        if problem.mask is not None:
            shown = torch.where(problem.mask[0] > 0, shown, torch.tensor(BRUSH_COLOUR).view(3, 1, 1))
        found = str(problem.findings.get("assumed", ""))
        return Preview(shown, problem.shape[1:], *sizes, found, problem.leave_alone)

    def restore(
        self, path: str | None, settings: Settings, mask: Tensor | None, session: str, reference: str | None = None
    ) -> Iterator[Moment | Outcome]:
        """Restore the upload ``path``, toward the upload ``reference`` where there is one: moments, then the outcome.

        Raises DeqirError, or StoppedError by the session.
        """
        stop, folder = self.sessions.begin(session)
        file, task = stage(self.photo(path, settings), settings, mask, folder)
        job, recorder, trail = self._job(settings, task), Recorder(), Trail()
        guided = None if reference is None else Guided(job, settings, read_photo(reference, self.limits))
        files = _Files(file, Path(path or "").name, Path(task["mask"]) if settings.has_brush else None)
        solve = Solve(partial(_work, job, settings, files, (recorder, trail), guided), stop)
        for progress in solve:
            yield Moment(progress, recorder, trail)
        yield solve.outcome

    def _job(self, settings: Settings, task: Mapping[str, Any]) -> RestoreJob:
        prior, options = self._prior(settings.prior), settings.options(self.device)
        return RestoreJob(prior, task, options, settings.seed, settings.noise, settings.simulate)

    def _prior(self, name: str) -> Denoiser:
        with self.lock:
            if name not in self.loaded:
                self.loaded[name] = load_prior(self.sources[name])
            return self.loaded[name]


@dataclass(frozen=True)
class _Files:
    """The ``photo`` as it is restored, the ``name`` of the upload, and the ``mask`` that was drawn on it."""

    photo: Path
    name: str
    mask: Path | None

    def named(self, ending: str) -> Path:
        """A file to download: the name of the upload with ``ending``."""
        return self.photo.with_name(f"{stem_of(self.name)}-{ending}")


def _work(
    job: RestoreJob,
    settings: Settings,
    files: _Files,
    listeners: tuple[Recorder, Trail],
    guided: Guided | None,
    watch: Watch,
) -> Outcome:
    """The whole restoration, in the thread of the solve."""
    finished: list[Finished] = []
    recorder, result = listeners[0], files.named("restored.png")

    def heard(progress: Progress) -> None:
        for listener in (*listeners, watch):
            listener(progress)

    if guided is None:
        record = job.run(files.photo, result, heard, keep=finished.append)
        refuse_whole(not finished, record.get("findings", {}))
    else:
        finished.append(guided.run(files.photo, result, heard, watch))
    run = recorder.record(finished[0])
    run.settings.pop("mask_file", None)
    run.settings.update(file=files.name, out=result.name)  # a visitor learns no path of the server
    run.settings["task_settings"] = dict(settings.task)
    return _outcome(settings, files, result, run)


def _outcome(settings: Settings, files: _Files, result: Path, run: RunRecord) -> Outcome:
    """Write what is shown and downloaded beside the ``result``."""
    report = write_report(result.parent, run).replace(files.named("report.html"))
    mask = None if files.mask is None else files.mask.replace(files.named("mask.png"))
    asked = {"photo": files.name, "settings": settings.to_json(), "mask": None if mask is None else mask.name}
    text = json.dumps({**asked, "result": run.settings}, indent=2, allow_nan=False) + "\n"
    atomic_write(files.named("settings.json"), text.encode())
    before, after = result.with_name("before.png"), result.with_name("after.png")
    size = (run.pictures["result"].shape[1], run.pictures["result"].shape[2])
    for target, name in ((before, "observation"), (after, "result")):
        write_image(target, _enlarged(run.pictures[name], size))
    return Outcome(before, after, result, files.named("settings.json"), mask, report, run)


def _enlarged(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """``picture`` (C, h, w) uint8 in ``size`` (H, W) and colour, its pixels repeated."""
    image = interpolate(picture[None].float() / 255, size, mode="nearest")[0]
    return image if len(image) == 3 else torch.cat([image] * 3)
