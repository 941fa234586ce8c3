"""Sweeps saved by starting each frame of a sequence from the trajectory of the frame before.

    python benchmarks/sequence.py --out benchmarks/results

The "video" is a 64-pixel window that moves over scikit-image's astronaut, the built-in prior restores its frames with
the preconditioned solver to 0.5 grey levels of the serial chain, with the same seed for every frame. The first frame
is the same with and without warm starts and left out of the means.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from deqir import Denoiser, Restorer, load_prior
from deqir.noise import generator
from deqir.tasks import Task

SIDE = 64
CASES = ((Task("sr", scale=4), 0.0, 1), (Task("sr", scale=4), 0.0, 4), (Task("denoise"), 0.05, 1))


def frames(count: int, step: int) -> Tensor:
    """``count`` windows (3, SIDE, SIDE), each ``step`` pixels right of the one before."""
    from skimage import data

    photo = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1).float() / 255
    return torch.stack([photo[:, 60 : 60 + SIDE, 190 + k * step : 190 + k * step + SIDE] for k in range(count)])


def row(prior: Denoiser, task: Task, noise: float, step: int, count: int, steps: int) -> str:
    """Mean sweeps and evaluations a frame, cold and warm, and how far apart the two images are at most."""
    truth = frames(count, step)
    operator = task.operator(tuple(truth.shape[1:]))
    restorer = Restorer(prior, operator, steps=steps, noise=noise, solver="preconditioned", keep_trajectory=True)
    start, cold, warm, apart = None, [], [], 0.0
    for k, image in enumerate(truth):
        y = operator.forward(image[None])
        y = y + noise * torch.randn(y.shape, generator=generator(k, "observation"))
        alone = restorer.restore(y)
        after = alone if start is None else restorer.restore(y, start=start)
        start = after.trajectory
        if k:
            cold.append(alone.stats)
            warm.append(after.stats)
            apart = max(apart, 255 * float((alone.image - after.image).square().mean().sqrt()))
    cells = [
        f"{sum(s.sweeps[0] for s in runs) / len(runs):.1f} ({sum(s.nfe[0] for s in runs) / len(runs):.0f})"
        for runs in (cold, warm)
    ]
    return f"| {task.name}, noise {noise} | {step} | {steps} | {cells[0]} | {cells[1]} | {apart:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    prior = load_prior()
    rows = [
        "| task | pixels a frame | steps | sweeps (evaluations) alone | from the frame before | apart (grey levels) |",
        "|---|---|---|---|---|---|",
    ]
    for task, noise, step in CASES:
        rows.append(row(prior, task, noise, step, args.frames, args.steps))
        print(rows[-1], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "sequence.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
