"""``deqir demo``: a bundled photo restored three ways, serially and in parallel, on one sheet of pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from deqir.errors import DeqirError
from deqir.images import read_image, write_image
from deqir.metrics import psnr, ssim
from deqir.outputs import make_folder, write_records
from deqir.priors import Denoiser, load_prior
from deqir.restoration import Restorer
from deqir.sheet import Picture, draw_sheet
from deqir.solvers import Status
from deqir.tasks import Task
from deqir.version import __version__

PHOTO = Path(__file__).with_name("data") / "dogs.png"
OLD_PHOTO = PHOTO.with_name("whitman.jpg")
"""The scan of an old photo, in the public domain (data/README.md)."""
REDUCTION = 2
TASKS = (Task("sr", scale=4), Task("inpaint", mask="text"), Task("deblur", blur="gaussian"))
TITLES = {"sr": "super-resolution x4", "inpaint": "inpainting of text", "deblur": "deblurring (5x5)"}

ProgressLine = Callable[[str], AbstractContextManager[Callable[[Any], None]]]


@dataclass(frozen=True)
class Settings:
    """What both chains of the demo share."""

    prior: Denoiser
    steps: int
    seed: int
    device: str | None


def demo_photo() -> Tensor:
    """The bundled photo at half its size, (1, 3, 200, 144) in [0, 1], every pixel the mean of four."""
    from torch.nn.functional import avg_pool2d

    return avg_pool2d(read_image(PHOTO)[None], REDUCTION)


def run_demo(out: Path, steps: int, seed: int, device: str | None, line: ProgressLine) -> Path:
    """Restore the photo for every task with both solvers; writes pictures, records and the sheet into ``out``."""
    make_folder(out)
    truth = demo_photo()
    settings = Settings(load_prior(), steps, seed, device)
    rows, records = [], []
    for task in TASKS:
        row, record = run_task(task, truth, settings, line)
        rows.append(row)
        records.append(record)
        for picture in row:
            write_image(out / f"{task.name}-{picture.title.split()[0]}.png", picture.image[0])
    sheet = draw_sheet(rows)
    write_image(out / "sheet.png", sheet)
    write_records(out / "demo.json", records)
    return out / "sheet.png"


def run_task(task: Task, truth: Tensor, settings: Settings, line: ProgressLine) -> tuple[list[Picture], dict[str, Any]]:
    """One row of the sheet and its record."""
    shape = (truth.shape[1], truth.shape[2], truth.shape[3])
    operator = task.operator(shape)
    y = operator.forward(truth)
    row = [observed(task, operator.pinv(y), y, truth)]
    row.append(picture("classical", task.classical(y, shape), truth, task.classical_name))
    record: dict[str, Any] = {"task": task.settings(), "steps": settings.steps, "version": __version__}
    images = {}
    for solver in ("serial", "preconditioned"):
        restorer = Restorer(settings.prior, operator, settings.steps, solver=solver, device=settings.device)
        with line(f"{task.name}, {solver}") as report:
            result = restorer.restore(y, seed=settings.seed, progress=report)
        if result.status[0] is not Status.CONVERGED:
            raise DeqirError(f"demo, {task.name}, {solver}: {result.status[0].value}")
        images[solver] = result.image.cpu().clamp(0, 1)
        sweeps, nfe = result.stats.sweeps[0], result.stats.nfe[0]
        record[solver] = {"sweeps": sweeps, "nfe": nfe, "seconds": round(result.stats.seconds, 2)}
        title = "serial" if solver == "serial" else "parallel"
        row.append(picture(title, images[solver], truth, f"{sweeps} sweeps, {nfe} evaluations"))
    agreement = float(psnr(images["preconditioned"], images["serial"])[0])
    record["agreement_db"] = agreement if agreement < float("inf") else None
    row.append(Picture("truth", truth, f"parallel to serial: {agreement:.1f} dB"))
    return row, record


def picture(title: str, image: Tensor, truth: Tensor, note: str) -> Picture:
    """``image`` with its PSNR and SSIM written under it."""
    figures = f"{float(psnr(image, truth)[0]):.2f} dB, SSIM {float(ssim(image, truth)[0]):.3f}"
    return Picture(title, image, f"{figures}\n{note}")


def observed(task: Task, pseudo_inverse: Tensor, y: Tensor, truth: Tensor) -> Picture:
    """The observation as a picture of the photo's size: small ones by their pixels enlarged, others with their PSNR."""
    if y.shape == truth.shape:
        return picture("observation", y.clamp(0, 1), truth, TITLES[task.name])
    return Picture("observation", pseudo_inverse.clamp(0, 1), TITLES[task.name])
