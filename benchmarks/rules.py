"""The consistency rules on noisy observations of five photographs the built-in prior never saw.

    pip install ".[benchmark]"
    python benchmarks/rules.py --out benchmarks/results              # about 8 minutes on one CPU core
    python benchmarks/rules.py --out benchmarks/results --report     # the table from what is there

The protocol: 64-pixel centre crops, noise of standard deviation 0.05, 0.1 and 0.2 for images in [0, 1], 50 steps, eta
0.85, seed 0, serial chains (a parallel solve gives the same images), PSNR against the truth after clipping to [0, 1].
The rules have their defaults, which were chosen on other photographs (see docs/rules.md). DDNM takes the observation as
noiseless. The classical methods know the noise level, but for bicubic interpolation and the pseudo-inverse, which
have no use for it. A run is one line of rules.jsonl; runs that are there are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import torch
from photos import held_out_photos

from deqir import Denoiser, Restorer, load_prior, psnr
from deqir.noise import generator
from deqir.tasks import Task

TASKS = {
    "denoise": Task("denoise"),
    "sr x4": Task("sr", scale=4),
    "deblur": Task("deblur", blur="gaussian"),
    "cs 50 %": Task("cs", ratio=0.5),
}
METHODS = ("classical", "ddnm", "ddnm+", "ddrm", "diffpir")
KEYS = ("method", "task", "sigma", "steps", "eta", "spacing", "side")


def observe(task: Task, truth: torch.Tensor, sigma: float) -> torch.Tensor:
    """The noisy observations of all photographs; every task and noise level has the same random numbers."""
    y = task.operator(tuple(truth.shape[1:])).forward(truth)
    return y + sigma * torch.randn(y.shape, generator=generator(0, "observation"))


def restore(prior: Denoiser, settings: dict, truth: torch.Tensor) -> torch.Tensor:
    """What one method makes of the observations, clipped to [0, 1]."""
    task, sigma, method = TASKS[settings["task"]], settings["sigma"], settings["method"]
    shape = tuple(truth.shape[1:])
    y = observe(task, truth, sigma)
    if method == "classical":
        return torch.cat([task.classical(part, shape, sigma) for part in y.split(1)])
    options = {key: settings[key] for key in ("steps", "eta", "spacing")}
    restorer = Restorer(prior, task.operator(shape), noise=sigma, rule=method, solver="serial", **options)
    return restorer.restore(y, seed=[0] * len(y)).image.cpu().clamp(0, 1)


def run(args: argparse.Namespace, path: Path) -> None:
    """All runs of the grid that ``path`` lacks."""
    done = {tuple(row[key] for key in KEYS) for row in read(path)}
    prior, photos = load_prior(), held_out_photos(args.side)
    truth = torch.stack(list(photos.values()))
    for task, sigma, method in itertools.product(args.tasks, args.sigmas, args.methods):
        values = (method, task, sigma, args.steps, args.eta, args.spacing, args.side)
        settings = dict(zip(KEYS, values, strict=True))
        if values in done:
            continue
        started = time.perf_counter()
        figures = psnr(restore(prior, settings, truth), truth).tolist()
        if not all(math.isfinite(value) for value in figures):
            raise SystemExit(f"{settings}: a figure is not finite, so there is no result")
        row = settings | {"psnr": dict(zip(photos, figures, strict=True))}
        row["seconds"] = round(time.perf_counter() - started, 1)
        with path.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(row, flush=True)


def read(path: Path) -> list[dict]:
    """The runs so far; a line that an interrupt cut short is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def mean(row: dict) -> float:
    """The mean PSNR over the photographs."""
    return sum(row["psnr"].values()) / len(row["psnr"])


def table(rows: list[dict]) -> str:
    """Markdown: the mean PSNR of every method, and on how many photographs DDNM+ beats DDNM and the classical one."""
    titles = ("task", "sigma", *METHODS, "ddnm+ beats ddnm", "ddnm+ beats classical")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    cases: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        cases.setdefault((row["task"], row["sigma"]), {})[row["method"]] = row
    for (task, sigma), found in sorted(cases.items(), key=lambda case: (list(TASKS).index(case[0][0]), case[0][1])):
        cells = [f"{mean(found[method]):.2f}" if method in found else "-" for method in METHODS]
        for other in ("ddnm", "classical"):
            if other not in found or "ddnm+" not in found:
                cells.append("-")
                continue
            pairs = [(value, found[other]["psnr"][photo]) for photo, value in found["ddnm+"]["psnr"].items()]
            cells.append(f"{sum(ours > theirs for ours, theirs in pairs)} of {len(pairs)}")
        lines.append(f"| {task} | {sigma} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def report(args: argparse.Namespace, path: Path) -> None:
    """rules.md from the runs with these settings."""
    settings = ("steps", "eta", "spacing", "side")
    rows = [row for row in read(path) if all(row[key] == getattr(args, key) for key in settings)]
    if not rows:
        raise SystemExit(f"{path} holds no runs with these settings; run the benchmark first")
    title = ", ".join(f"{key} {getattr(args, key)}" for key in settings)
    text = f"# Consistency rules\n\nMean PSNR in dB over five photographs; {title}; see benchmarks/rules.py.\n\n"
    (args.out / "rules.md").write_text(text + table(rows))
    print(table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--report", action="store_true", help="only write the table")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--eta", type=float, default=Restorer.eta)
    parser.add_argument("--spacing", default=Restorer.spacing)
    parser.add_argument("--side", type=int, default=64)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "rules.jsonl"
    if not args.report:
        run(args, path)
    report(args, path)


if __name__ == "__main__":
    main()
