"""A 512x384 photo to 2048x1536 by the command line with the built-in prior: time, peak memory, seams.

    pip install ".[benchmark]"
    python benchmarks/large_image.py --out benchmarks/results

The photo is the centre of scikit-learn's china, which the prior never saw. Peak memory is the largest resident set of
the process that restores. Seams: the mean jump between neighbouring pixels across every border of the tiles, over the
mean jump at the 32 nearest places that have the same position in the 4x4 blocks of the observation, at whose edges the
restoration jumps more than inside. 1 means that a border is like any other place; as photographs have edges of their
own, the same is given for places 32 pixels from the borders.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from deqir.images import read_image, write_image
from deqir.tiling import OVERLAP_SHARE, tiled_axis

SCALE = 4
NEARBY = 16
ASIDE = 32


def jump_ratios(image: Tensor, axis: int, tile: int, aside: int = 0) -> list[float]:
    """Jump of ``image`` (C, H, W) ``aside`` from each tile border along ``axis``, relative to places nearby."""
    jumps = image.movedim(axis, -1).diff(dim=-1).abs().mean((0, 1))
    starts = tiled_axis(image.shape[axis], tile, tile // OVERLAP_SHARE).starts
    borders = {k + aside for start in starts for k in (start - 1, start + tile - 1)}
    ratios = []
    for k in sorted(k for k in borders if 0 <= k < len(jumps)):
        nearby = [j for n in range(1, NEARBY + 1) for j in (k - SCALE * n, k + SCALE * n) if 0 <= j < len(jumps)]
        ratios.append(float(jumps[k] / jumps[nearby].mean()))
    return ratios


def summary(image: Tensor, tile: int, aside: int) -> str:
    """Mean and largest ratio along both axes."""
    ratios = [ratio for axis in (1, 2) for ratio in jump_ratios(image, axis, tile, aside)]
    return f"{sum(ratios) / len(ratios):.3f}, {max(ratios):.3f} (of {len(ratios)})"


def restore(folder: Path, width: int, height: int, options: list[str]) -> dict:
    """The record of ``deqir restore`` in a process of its own, with the peak of its memory in GB."""
    from sklearn.datasets import load_sample_image

    china = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1).float() / 255
    top, left = (china.shape[1] - height) // 2, (china.shape[2] - width) // 2
    write_image(folder / "small.png", china[:, top : top + height, left : left + width])
    command = [
        sys.executable,
        "-m",
        "deqir",
        "restore",
        "small.png",
        "--task",
        "sr",
        "--scale",
        str(SCALE),
        "--out",
        "large",
    ]
    command += ["--stats", "stats.json", *options]
    subprocess.run(command, cwd=folder, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    (record,) = json.loads((folder / "stats.json").read_text())
    return {**record, "peak_gb": peak / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--sizes", nargs="+", default=["256x192", "512x384"], help="widths and heights of the photo")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--keep", type=Path, help="also copy the last restored PNG to this file")
    args = parser.parse_args()
    lines = [
        "| restored | steps | dtype | tile | solver | seconds | peak memory (GB) | jump at borders: mean, largest "
        "| jump 32 pixels aside |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as name:
            options = ["--steps", str(args.steps), "--dtype", args.dtype]
            record = restore(Path(name), *map(int, size.split("x")), options)
            image = read_image(Path(name, "large", "small.png"))
        if args.keep is not None:
            write_image(args.keep, image)
        lines.append(
            f"| {image.shape[2]}x{image.shape[1]} | {args.steps} | {args.dtype} | {record['tile']} "
            f"| {record['solver']} | {record['seconds']:.0f} | {record['peak_gb']:.2f} "
            f"| {summary(image, record['tile'], 0)} | {summary(image, record['tile'], ASIDE)} |"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "large-image.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
