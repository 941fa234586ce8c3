"""Sliding windows of the preconditioned solver: sweeps and evaluations against the window, and memory.

    pip install ".[benchmark]"
    python benchmarks/windows.py --out benchmarks/results            # about an hour on one core
    python benchmarks/windows.py --out benchmarks/results --memory   # peak memory only, a few minutes

Each run restores a 32-pixel crop of a photograph the prior never saw, serially and in a window, and notes what
``auto`` expects (deqir.choice). Memory: one process a row restores a photo-sized image with a denoiser that costs next
to nothing and tells its peak after twelve sweeps (VmHWM, so Linux only) beyond that of a window of one, in states:
B C H W numbers.
glibc's allocator is told to give large blocks back (``MALLOC_MMAP_THRESHOLD_``); left alone it keeps up to half a
gigabyte of holes at 512x512.
A run is one line of windows.jsonl; runs that are there are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from photos import held_out_photos
from quality import TASKS as QUALITY_TASKS
from solvers import measure

from deqir import Restorer, load_prior
from deqir.choice import STATES_HELD, expected_evaluations, expected_sweeps
from deqir.operators import SuperResolution
from deqir.schedule import NoiseSchedule

TASKS = {task.name: task for task in QUALITY_TASKS.values()}
CASES = (("coffee", "sr", 0.85), ("coffee", "inpaint", 0.85), ("coffee", "sr", 0.0), ("china", "colorize", 0.85))
WINDOWS = (2, 4, 8, 16, 32, 64, 128)
MEMORY = ((1000, 512, 8), (1000, 512, 16), (1000, 512, 32), (100, 512, 16), (1000, 256, 32), (100, 256, None))


@dataclass(frozen=True)
class Gaussian:
    """The exact denoiser of white Gaussian images: a network that costs nothing."""

    channels: int = 3
    name: str = "gaussian"
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule.linear)

    def __call__(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        a = self.schedule.at(timesteps, x)
        return (1 - a).sqrt() / (0.2 * a + 1 - a) * x

    def to(self, device: torch.device, dtype: torch.dtype) -> Gaussian:
        return self


def sweeps(args: argparse.Namespace, path: Path) -> None:
    """All solves that ``path`` lacks."""
    done = {(row["steps"], row["photo"], row["task"], row["eta"], row["window"]) for row in read(path)}
    prior, photos = load_prior(), held_out_photos(32)
    for steps, (photo, task, eta) in itertools.product(args.steps, CASES):
        wanted = [w for w in WINDOWS if w < steps and (steps, photo, task, eta, w) not in done]
        if not wanted:
            continue
        operator = TASKS[task].operator((3, 32, 32))
        y = operator.forward(photos[photo][None])
        serial = Restorer(prior, operator, steps=steps, eta=eta, solver="serial").restore(y).image
        for window in wanted:
            restorer = Restorer(prior, operator, steps=steps, eta=eta, solver="preconditioned", window=window)
            row = {"steps": steps, "photo": photo, "task": task, "eta": eta, "window": window}
            row |= measure(restorer, y, serial)
            row.pop("history_db")
            with path.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(row, flush=True)


def read(path: Path) -> list[dict]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def peak(steps: int, side: int, window: int | None) -> int:
    """The peak resident bytes of a process that solves so."""
    code = f"import windows; windows.restore({steps}, {side}, {window})"
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    here = Path(__file__).parent
    ran = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    return int(ran.stdout)


def restore(steps: int, side: int, window: int | None) -> None:
    """Solve, and print the peak of this process in bytes."""
    torch.set_num_threads(1)
    operator = SuperResolution(4)
    y = operator.forward(torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
    options = {"solver": "preconditioned", "window": window, "device": "cpu", "max_sweeps": 12, "tile": None}
    result = Restorer(Gaussian(), operator, steps=steps, **options).restore(y)
    if not bool(result.image.isfinite().all()):
        raise SystemExit("the restored image is not finite, so there is no result")
    lines = Path("/proc/self/status").read_text().splitlines()  # ru_maxrss would begin with that of the parent
    print(next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")))


def memory_table() -> str:
    """Markdown: the memory of the states, measured and by the formula."""
    lines = ["| steps | image | window W | peak beyond a window of one | in states | formula |", "|" + "---|" * 6]
    for steps, side, window in MEMORY:
        state = 3 * side * side * 4
        extra = peak(steps, side, window) - peak(steps, side, 1)
        held = steps if window is None else window
        cells = (
            steps,
            f"{side}x{side}",
            window or "none",
            f"{extra / 1e6:.0f} MB",
            f"{extra / state / held:.1f} W",
        )
        lines.append("| " + " | ".join(map(str, (*cells, f"{STATES_HELD * held * state / 1e6:.0f} MB"))) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def sweep_table(rows: list[dict]) -> str:
    """Markdown: median (least to most) of every number of steps and window, and what ``auto`` expects."""
    lines = ["| steps | window | runs | sweeps | expected | evaluations / S | expected | within 0.5 grey levels |"]
    lines.append("|" + "---|" * 8)
    groups: dict[tuple[int, int], list[dict]] = {}
    for row in rows:
        groups.setdefault((row["steps"], row["window"]), []).append(row)
    for (steps, window), members in sorted(groups.items()):
        cells = [steps, window, len(members), spread([row["sweeps"] for row in members], "{:g}")]
        cells += [f"{expected_sweeps(steps, window):.0f}", spread([row["nfe"] / steps for row in members], "{:.1f}")]
        cells += [f"{expected_evaluations(steps, window) / steps:.1f}"]
        held = sum(row["error"] <= 0.5 and row["status"] == "converged" for row in members)
        lines.append("| " + " | ".join(map(str, [*cells, f"{held} of {len(members)}"])) + " |")
    return "\n".join(lines) + "\n"


def spread(values: list[float], form: str) -> str:
    if not all(map(math.isfinite, values)):
        raise SystemExit("a count is not finite, so there is no result")
    return " ".join([form.format(median(values)), f"({form.format(min(values))} to {form.format(max(values))})"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 50, 100, 250])
    parser.add_argument("--memory", action="store_true", help="only the memory")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "windows.jsonl"
    if not args.memory:
        sweeps(args, path)
    parts = ["# Sliding windows\n\nSee benchmarks/windows.py.\n"]
    if read(path):
        parts += ["## Sweeps and evaluations: median (least to most)\n", sweep_table(read(path))]
    parts += ["## Memory of the states\n", memory_table()]
    (args.out / "windows.md").write_text("\n".join(parts))
    print("\n".join(parts))


if __name__ == "__main__":
    main()
