"""Photos whose problem is found in the photo itself: old photos, and photos of unknown degradation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from deqir.defects import DefectDetector
from deqir.diagnosis import diagnose
from deqir.errors import OptionError
from deqir.fading import estimate_fading
from deqir.images import JpegQuantization
from deqir.noise_estimation import estimate_noise
from deqir.old_photo import DETECT
from deqir.operators import Colorization
from deqir.tasks import Task

LEAST_NOISE = 1e-3
DOUBT = 0.01
"""The noise that stands for what an estimated blur gets wrong: undoing the wrong blur as if exact invents ringing."""


@dataclass(frozen=True, eq=False)
class Appraisal:
    """How a photo is going to be restored: ``task``, None where it is best left alone, and its observation ``y``.

    ``y`` (1, C, h, w) is the scan with fading undone, grey where colours are to be found; ``noise`` its level, whether
    it was ``estimated``. ``mask`` (1, 1, h, w): the damage that was detected, 0 there. ``findings``: for the record.
    """

    task: Task | None
    y: Tensor
    noise: float
    estimated: bool
    mask: Tensor | None = None
    findings: Mapping[str, Any] = field(default_factory=dict)


def appraise(
    task: Task, photo: Tensor, noise: float | Literal["auto"] | None, quantization: JpegQuantization | None
) -> Appraisal:
    """Look at ``photo`` (1, C, H, W) in [0, 1] for task old-photo or auto; without a number ``noise`` is estimated."""
    if photo.ndim != 4 or photo.shape[1] not in (1, 3):
        raise OptionError(f"task {task.name} takes photos, but the file holds shape {tuple(photo.shape[1:])}")
    given = None if noise is None or noise == "auto" else noise
    if task.name == "auto":
        return _unknown(task, photo, given, quantization)
    return _old(task, photo, given)


def _unknown(task: Task, photo: Tensor, noise: float | None, quantization: JpegQuantization | None) -> Appraisal:
    found = diagnose(photo[0], quantization, noise, task.blur_width or None)
    findings = {
        "assumed": found.sentence,
        "noise": asdict(found.noise),
        "blur_width": None if found.blur is None else asdict(found.blur),
        "jpeg_quality": found.jpeg_quality,
    }
    chosen, level = None, found.noise.value
    if found.remedy == "denoise":
        chosen = replace(task, name="denoise")
    elif found.remedy == "deblur" and found.blur is not None:
        chosen = replace(task, name="deblur", blur_width=found.blur.value, boundary="reflect")
        level = level if found.blur.given or noise is not None else max(level, DOUBT)
    return Appraisal(chosen, photo, level, noise is None, findings=findings)


def _old(task: Task, photo: Tensor, noise: float | None) -> Appraisal:
    """Damage first, for its tones would pass for the photo's; then fading; then grain, as it then is."""
    shape = (photo.shape[1], photo.shape[2], photo.shape[3])
    detected = DefectDetector().observed(photo) if task.mask == DETECT else None
    known = task.scan_mask(shape) if detected is None else detected
    fading = estimate_fading(photo, known) if task.fading == "auto" else None
    y = photo if fading is None else fading.undo(photo)
    if task.colorize and y.shape[1] == 3:
        y = Colorization(task.weights).forward(y)
    level = noise if noise is not None else max(estimate_noise(y[0], known[0]), LEAST_NOISE)
    hidden = float((known == 0).double().mean())
    findings = {
        "assumed": _sentence(hidden, detected is not None, fading is not None, level, noise is None),
        "mask_share": hidden,
        "mask_detected": detected is not None,
        "fading": None if fading is None else asdict(fading),
    }
    return Appraisal(task, y * (known > 0), level, noise is None, detected, findings)


def _sentence(hidden: float, detected: bool, faded: bool, noise: float, estimated: bool) -> str:
    damage = f"{hidden:.1%} of the photo damaged ({'detected' if detected else 'by the mask'})"
    tones = "fading undone" if faded else "tones left alone"
    return f"{damage}, {tones}, grain {noise:.3f}{' (estimated)' if estimated else ''}"
