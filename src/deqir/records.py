"""Records: what JSON keeps of a restoration, of a photo left alone, of a failure."""

from __future__ import annotations

import os
import re
from math import isfinite
from pathlib import Path

from torch import Tensor

from deqir.consistency import describe_rule
from deqir.errors import DeqirError, NonFiniteError, OptionError
from deqir.metrics import LEAST_SSIM_SIDE, psnr, ssim
from deqir.outputs import Record
from deqir.problems import Problem
from deqir.restoration import Restorer, resolve_device
from deqir.results import Restoration
from deqir.solvers import Status
from deqir.version import __version__


def restored_record(file: Path, problem: Problem, restorer: Restorer, result: Restoration, index: int = 0) -> Record:
    """What is kept of image ``index`` of a restored batch; raises DeqirError where it is not finite."""
    if result.status[index] is Status.NON_FINITE:
        raise NonFiniteError(
            f"{file}: the chain gave NaN or infinite values at timestep {result.failed_at[index]}; "
            "check the prior, the dtype and the observation"
        )
    stats = result.stats
    record: Record = {
        **_asked(file, problem, restorer),
        **describe_rule(restorer.chosen_rule),
        "solver": stats.solver,
        "solver_reason": stats.reason,
        "window": stats.window,
        "status": result.status[index].name.lower(),
        "sweeps": stats.sweeps[index],
        "nfe": stats.nfe[index],
        "seconds": round(stats.seconds, 3),
        "max_batch": stats.max_batch,
        "tile": stats.tile,
        "residual": last_residual(result, index),
        "estimated_error": finite_or_none(float(result.estimated_error[index])),
        "measurement_error": float(result.measurement_error[index]),
    }
    if problem.findings:
        record["findings"] = dict(problem.findings)
    if problem.truth is not None:
        record |= scores(problem, result.image[index : index + 1].cpu())
    return record


def untouched(file: Path, problem: Problem, restorer: Restorer) -> Record:
    """The record of a photo that was left as it is; ``restorer`` has what was asked for."""
    nothing = ("rule", "window", "max_batch", "tile", "residual", "estimated_error", "measurement_error")
    return {
        **_asked(file, problem, restorer),
        **dict.fromkeys(nothing),
        "rule_settings": {},
        "solver": "none",
        "solver_reason": "nothing that is certain to be wrong",
        "status": "unchanged",
        "sweeps": 0,
        "nfe": 0,
        "seconds": 0.0,
        "findings": dict(problem.findings),
    }


def _asked(file: Path, problem: Problem, restorer: Restorer) -> Record:
    """What was to be done, with which settings, where."""
    return {
        "file": str(file),
        "task": problem.task.name,
        "task_settings": problem.task.settings(),
        "steps": restorer.steps,
        "eta": restorer.eta,
        "noise": problem.noise,
        "noise_estimated": problem.noise_estimated,
        "spacing": restorer.spacing,
        "travel_length": restorer.travel_length,
        "travel_repeat": restorer.travel_repeat,
        "average": restorer.average,
        "prior": restorer.prior.name,
        "tolerance": restorer.tolerance,
        "max_sweeps": restorer.max_sweeps,
        "device": str(resolve_device(restorer.device)),
        "dtype": restorer.dtype,
        "version": __version__,
    }


def failure(file: Path, error: Exception) -> Record:
    """The record of a file that could not be restored, with the one sentence that says why, which names the file."""
    sentence = str(error)
    if not isinstance(error, DeqirError):
        if os.environ.get("DEQIR_DEBUG"):
            raise error
        cause = (sentence.splitlines() or [""])[0]
        sentence = f"{type(error).__name__}: {cause}; please report this, DEQIR_DEBUG=1 shows more"
    if not re.search(rf"(?<![\w.-]){re.escape(file.name)}(?![\w-])", sentence):
        sentence = f"{file}: {sentence}"
    return {"file": str(file), "status": "failed", "error": sentence}


def scores(problem: Problem, image: Tensor) -> Record:
    """PSNR (dB; None: identical) and SSIM of ``image`` and of the classical method against the truth.

    SSIM is None for an image with a side below ``LEAST_SSIM_SIDE`` pixels, which has none.
    """
    if problem.truth is None:
        raise OptionError("scores need the truth; restore with simulate")
    reference = problem.task.classical(problem.y, problem.shape, problem.noise)
    record: Record = {"classical": problem.task.classical_name}
    for prefix, candidate in (("", image.clamp(0, 1)), ("classical_", reference)):
        record[f"{prefix}psnr"] = finite_or_none(float(psnr(candidate, problem.truth)[0]))  # None: identical
        measurable = min(problem.shape[1:]) >= LEAST_SSIM_SIDE
        record[f"{prefix}ssim"] = float(ssim(candidate, problem.truth)[0]) if measurable else None
    return record


def finite_or_none(value: float) -> float | None:
    """``value`` as JSON can hold it, which has no infinity."""
    return value if isfinite(value) else None


def last_residual(result: Restoration, index: int) -> float | None:
    """The last measured change of image ``index`` in grey levels; None for a serial chain, which has none."""
    values = result.residuals[:, index]
    values = values[~values.isnan()]
    return float(values[-1]) if len(values) else None
