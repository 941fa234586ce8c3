"""Quality on five photographs the built-in prior never saw, against the classical method of each task.

    pip install ".[benchmark]"
    python benchmarks/quality.py --out benchmarks/results

The protocol: 256-pixel centre crops, observations in float32, 100 steps, eta 0.85, seed 0, serial chain, figures
against the truth after clipping to [0, 1] (SSIM as torchmetrics computes it): of the last state, and of the mean of
the estimates at noise up to ``--average``, both of one run. The classical methods are bicubic
interpolation, scikit-image's biharmonic inpainting and scikit-image's Wiener deconvolution, the last with the balance
that scored best on these very photographs. Writes quality.json, quality.md and a sheet of pictures per task.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from photos import held_out_photos

from deqir import Restorer, load_prior, psnr, ssim
from deqir.classical import wiener_deconvolution
from deqir.images import write_image
from deqir.operators import gaussian_kernel
from deqir.sheet import Picture, draw_sheet
from deqir.tasks import Task

TASKS = {
    "sr x4 (average pooling)": Task("sr", scale=4),
    "inpainting 50 % random": Task("inpaint", hidden=0.5),
    "deblurring Gaussian 5x5": Task("deblur", blur="gaussian"),
    "colourisation": Task("colorize"),
    "compressed sensing 25 %": Task("cs", ratio=0.25),
}
BALANCES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def classical(task: Task, y: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The classical restoration; Wiener with its best balance for the mean PSNR."""
    if task.name != "deblur":
        return task.classical(y, tuple(truth.shape[1:]))
    candidates = [wiener_deconvolution(y, gaussian_kernel(), balance) for balance in BALANCES]
    return max(candidates, key=lambda image: float(psnr(image, truth).mean()))


def measure(task: Task, truth: torch.Tensor, restorer: Restorer, batch: int) -> tuple[dict, list[torch.Tensor]]:
    """PSNR and SSIM per photo for one task, and the images: observed, classical, last state, mean of estimates."""
    operator = task.operator(tuple(truth.shape[1:]))
    y = operator.forward(truth)
    reference = classical(task, y, truth)
    started = time.perf_counter()
    parts = [restorer.restore(part, seed=[0] * len(part)) for part in y.split(batch)]
    seconds = time.perf_counter() - started
    last = torch.cat([(part.trajectory[-1].cpu() + 1) / 2 for part in parts]).clamp(0, 1)
    mean = torch.cat([part.image.cpu() for part in parts]).clamp(0, 1)
    figures = {"classical": task.classical_name, "seconds": round(seconds, 1), "steps": restorer.steps}
    for name, image in (("last", last), ("mean", mean), ("reference", reference)):
        figures[f"{name}_psnr"] = psnr(image, truth).tolist()
        figures[f"{name}_ssim"] = ssim(image, truth).tolist()
    figures["measurement_error"] = max(float(part.measurement_error.max()) for part in parts)
    values = [v for key in figures if key.endswith(("psnr", "ssim")) for v in figures[key]]
    if not values or not all(math.isfinite(value) for value in values):
        raise SystemExit(f"{task.name}: a figure is not finite, so there is no result")
    return figures, [operator.pinv(y).clamp(0, 1), reference, last, mean]


COLUMNS = [f"{name}_{score}" for name in ("last", "mean", "reference") for score in ("psnr", "ssim")]


def table(results: dict[str, dict], photos: list[str]) -> str:
    """The results as Markdown, one row a task and photo, and the means."""
    lines = [
        "| task | photo | last state PSNR | SSIM | mean of estimates PSNR | SSIM | classical | PSNR | SSIM |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task, figures in results.items():
        columns = [figures[key] for key in COLUMNS]
        rows = [*zip(photos, *columns, strict=True), ("**mean**", *(sum(c) / len(c) for c in columns))]
        for photo, *values in rows:
            cells = [f"{value:.{4 if k % 2 else 2}f}" for k, value in enumerate(values)]
            lines.append(f"| {' | '.join([task, photo, *cells[:4], figures['classical'], *cells[4:]])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--prior", default="builtin")
    parser.add_argument("--tasks", nargs="*", default=None, help="names of deqir tasks (default: all)")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--eta", type=float, default=0.85)
    parser.add_argument("--spacing", default=Restorer.spacing)
    parser.add_argument("--average", type=float, default=0.05)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=5)
    args = parser.parse_args()
    photos = held_out_photos(args.side)
    truth = torch.stack(list(photos.values()))
    args.out.mkdir(parents=True, exist_ok=True)
    prior = load_prior(args.prior)
    results = {}
    for title, task in TASKS.items():
        if args.tasks is None or task.name in args.tasks:
            operator = task.operator(tuple(truth.shape[1:]))
            options = {"steps": args.steps, "eta": args.eta, "spacing": args.spacing, "dtype": args.dtype}
            averaging = {"average": args.average, "keep_trajectory": True}
            restorer = Restorer(prior, operator, solver="serial", **options, **averaging)
            results[title], images = measure(task, truth, restorer, args.batch)
            names = ("observation (A+ y)", task.classical_name, "last state", "mean of estimates", "truth")
            rows = [
                [Picture(n, picture[k : k + 1]) for n, picture in zip(names, [*images, truth], strict=True)]
                for k in range(len(truth))
            ]
            write_image(args.out / f"quality-{task.name}.png", draw_sheet(rows, zoom=1))
            print(table({title: results[title]}, list(photos)), flush=True)
    settings = {key: str(value) for key, value in vars(args).items() if key != "out"}
    (args.out / "quality.json").write_text(json.dumps({"settings": settings, "results": results}, indent=1) + "\n")
    (args.out / "quality.md").write_text(table(results, list(photos)))


if __name__ == "__main__":
    main()
