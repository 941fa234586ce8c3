"""Peak memory and time of every operator on one photo, 12 megapixels (4000x3000) by default, three channels, float32.

    python benchmarks/operator_memory.py --out benchmarks/results

Each operator runs in a process of its own. Memory is the growth of its peak resident set over what Python, torch and
the photo take, after forward, pseudo-inverse and range projection in this order; time is that of the second
call, and of the first one, which also decomposes the operator.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from deqir import operators
from deqir.operators import LinearOperator


def all_operators(height: int, width: int) -> dict[str, LinearOperator]:
    mask = torch.rand((height, width), generator=torch.Generator().manual_seed(0)) > 0.5
    return {
        "super-resolution x4, average": operators.SuperResolution(4),
        "super-resolution x4, bicubic": operators.SuperResolution(4, "bicubic"),
        "inpainting": operators.Inpainting(mask),
        "colourisation": operators.Colorization(),
        "deblurring, circular": operators.Deblurring(operators.gaussian_kernel()),
        "deblurring, reflect": operators.Deblurring(operators.gaussian_kernel(), "reflect"),
        "deblurring, zero": operators.Deblurring(operators.gaussian_kernel(), "zero"),
        "compressed sensing 25 %": operators.CompressedSensing(0.25).at((3, height, width)),
        "denoising": operators.Denoising(),
    }


def peak() -> float:
    """The peak of the resident set so far, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure(name: str, height: int, width: int) -> str:
    """One row of the table, measured in this process."""
    operator = all_operators(height, width)[name]
    x = torch.rand(1, 3, height, width)
    before, cells = peak(), []
    y = None
    for step in ("forward", "pinv", "range_projection"):
        times = []
        for _ in range(2):
            started = time.perf_counter()
            out = getattr(operator, step)(y if step == "pinv" else x)
            times.append(time.perf_counter() - started)
            if step == "forward":
                y = out
            del out
        cells.append(f"{peak() - before:.2f} | {times[1]:.1f} ({times[0]:.1f})")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--only", help="measure this operator here and print its row")
    args = parser.parse_args()
    if args.only:
        with torch.no_grad():
            print(measure(args.only, args.height, args.width))
        return
    rows = [
        "| operator | forward: GB | s (first) | pinv: GB | s (first) | range: GB | s (first) |",
        "|---|---|---|---|---|---|---|",
    ]
    size = ["--height", str(args.height), "--width", str(args.width)]
    for name in all_operators(args.height, args.width):
        command = [sys.executable, __file__, *size, "--only", name]
        rows.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        print(rows[-1], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "operator-memory.md").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
