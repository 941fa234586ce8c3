"""Running a benchmark: every case of every image that the journal lacks."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from deqir.benchmark.cases import Case, Plan, Setup
from deqir.benchmark.dataset import Dataset
from deqir.benchmark.journal import Journal, Record
from deqir.benchmark.scores import Scores, consistency
from deqir.errors import DeqirError
from deqir.images import read_image, write_image
from deqir.operators import LinearOperator
from deqir.outputs import make_folder
from deqir.priors import Denoiser, load_prior
from deqir.problems import noisy, truth_shape
from deqir.restoration import Restorer, resolve_device
from deqir.results import Progress
from deqir.solvers import Status
from deqir.version import __version__

Report = Callable[[Progress], None]
ProgressLine = Callable[[str], AbstractContextManager[Report | None]]


@dataclass(frozen=True)
class Outcome:
    """What a run came to: the records by setup and image name, and one sentence for every image or case that failed."""

    records: dict[Setup, dict[str, Record]]
    failures: tuple[str, ...]
    fresh: int


@dataclass(frozen=True)
class Benchmark:
    """A plan, the images it runs on and the folder ``out`` of its runs.

    ``out/runs.jsonl`` is the journal; restored images go to ``out/images`` where ``keep_images``. ``prior_options`` are
    those of ``load_prior``; ``device`` and ``dtype`` are the restorer's.
    """

    plan: Plan
    dataset: Dataset
    out: Path
    scores: Scores = field(default_factory=Scores)
    device: str | None = None
    dtype: str = "float32"
    prior_options: dict[str, Any] = field(default_factory=dict)
    keep_images: bool = True

    @property
    def journal(self) -> Journal:
        """The runs so far."""
        return Journal(self.out / "runs.jsonl")

    def run(
        self, say: Callable[[str], None] = lambda line: None, progress: ProgressLine = lambda title: nullcontext()
    ) -> Outcome:
        """Run what is missing and return all records of the plan.

        ``say`` is given one line for every case that ran or failed; ``progress`` is given a title, and shows the
        reports of that chain while its context lasts. An image or case that fails is named, left out and tried again
        by the next run; the others finish. Raises DeqirError where a prior cannot be loaded or nothing can be written.
        """
        make_folder(self.out)
        resolve_device(self.device)
        names, setups = self.dataset.names(), list(self.plan.setups())
        done = self.journal.read()
        missing = {setup: [name for name in names if self.plan.case(name, setup).key not in done] for setup in setups}
        failures: list[str] = []
        for prior in dict.fromkeys(setup.prior for setup in setups if missing[setup]):
            loaded = None if prior is None else load_prior(prior, **self.prior_options)
            for name in names:
                cases = [
                    self.plan.case(name, setup) for setup in setups if setup.prior == prior and name in missing[setup]
                ]
                for failure in self._run_image(name, cases, loaded, say, progress) if cases else ():
                    if failure not in failures:
                        failures.append(failure)
                        say(f"failed: {failure}")
        fresh = self.journal.read()
        records = {
            setup: {name: fresh[key] for name in names if (key := self.plan.case(name, setup).key) in fresh}
            for setup in setups
        }
        return Outcome(records, tuple(failures), len(fresh) - len(done))

    def _run_image(
        self,
        name: str,
        cases: list[Case],
        prior: Denoiser | None,
        say: Callable[[str], None],
        progress: ProgressLine,
    ) -> list[str]:
        """Run the cases of one image and one prior; the sentences of those that failed."""
        try:
            truth = self.dataset.truth(name, self.plan.preparation)
        except Exception as error:
            return [_sentence(name, error)]
        failures = []
        for case in cases:
            title = f"{name}, {case.setup}"
            try:
                with progress(title) as report:
                    record = self.run_case(case, truth, prior, report)
                self.journal.add(case.key, record)
                say(f"{title}: {_figure(record['psnr'])} dB, {record['sweeps']} sweeps, {record['seconds']} s")
            except Exception as error:
                failures.append(_sentence(title, error))
        return failures

    def run_case(self, case: Case, truth: Tensor, prior: Denoiser | None, progress: Report | None = None) -> Record:
        """The record of one case: its parts by name, the figures of the image and what it cost."""
        degradation, shape = case.setup.degradation, truth_shape(case.setup.degradation.task, truth, Path(case.image))
        operator = degradation.task.operator(shape)
        y = noisy(operator.forward(truth), degradation.noise, case.seed)
        if case.setup.chain is None or prior is None:
            image, cost = _timed(lambda: degradation.task.classical(y, shape, degradation.noise))
        else:
            image, cost = self._restored(case, y, self._restorer(case, prior, operator), progress)
        image = image.clamp(0, 1).to(truth)
        figures = self.scores.of_image(image, truth)
        if degradation.task.name == "colorize":
            figures["cons"] = consistency(operator, image, y)
        if self.keep_images:
            target = self.image_path(case)
            make_folder(target.parent)
            write_image(target, image[0])
        named = {"image": case.image, "seed": case.seed, **case.setup.settings()}
        return {**named, **figures, **cost, "version": __version__}

    def _restorer(self, case: Case, prior: Denoiser, operator: LinearOperator) -> Restorer:
        method, chain = case.setup.method, case.setup.chain
        options: dict[str, Any] = {} if chain is None else asdict(chain)
        options |= {"solver": method.solver, "rule": method.rule, "device": self.device, "dtype": self.dtype}
        return Restorer(prior, operator, noise=case.setup.degradation.noise, **options)

    def _restored(self, case: Case, y: Tensor, restorer: Restorer, progress: Report | None) -> tuple[Tensor, Record]:
        """The restored image and what it cost."""
        result = restorer.restore(y, seed=case.seed, progress=progress)
        if result.status[0] is Status.NON_FINITE:
            raise DeqirError(result.status[0].value)
        cost = {
            "status": result.status[0].name.lower(),
            "sweeps": result.stats.sweeps[0],
            "nfe": result.stats.nfe[0],
            "seconds": round(result.stats.seconds, 4),
            "device": str(resolve_device(self.device)),
        }
        return result.image.cpu(), cost

    def image_path(self, case: Case) -> Path:
        """Where the restored image of ``case`` is kept."""
        return self.out / "images" / folder_name(case.setup) / f"{case.image}.png"

    def distributions(self, outcome: Outcome) -> dict[Setup, dict[str, float]]:
        """FID and KID of every setup whose images are kept, complete and at least two; none without Inception."""
        if self.scores.inception is None:
            return {}
        names, found = self.dataset.names(), {}
        for setup, records in outcome.records.items():
            kept = [name for name in names if name in records]
            paths = [self.image_path(self.plan.case(name, setup)) for name in kept]
            if len(kept) >= 2 and all(path.exists() for path in paths):
                truths = (self.dataset.truth(name, self.plan.preparation)[0] for name in kept)
                found[setup] = self.scores.of_sets((read_image(path) for path in paths), truths)
        return found


def folder_name(setup: Setup) -> str:
    """A folder name that tells the setup and is its own: words, then a digest of all its settings."""
    digest = hashlib.sha256(json.dumps(setup.settings(), sort_keys=True).encode()).hexdigest()[:8]
    words = f"{setup.degradation.task.name}-{setup.method}".replace(":", "-").replace("+", "plus")
    return f"{words}-{digest}"


def _timed(restore: Callable[[], Tensor]) -> tuple[Tensor, Record]:
    """What a classical method makes, and its cost: no network is called."""
    started = time.perf_counter()
    image = restore()
    seconds = round(time.perf_counter() - started, 4)
    return image, {"status": "converged", "sweeps": 0, "nfe": 0, "seconds": seconds, "device": "cpu"}


def _sentence(title: str, error: Exception) -> str:
    """What went wrong with ``title``; an error that deqir did not foresee is raised where DEQIR_DEBUG is set."""
    if isinstance(error, DeqirError):
        return f"{title}: {error}"
    if os.environ.get("DEQIR_DEBUG"):
        raise error
    cause = (str(error).splitlines() or [""])[0]
    return f"{title}: {type(error).__name__}: {cause}; please report this, DEQIR_DEBUG=1 shows more"


def _figure(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.2f}"
