"""What optimising the initial noise brings, on five photographs the built-in prior never saw; and inversion.

    pip install ".[benchmark]"
    python benchmarks/initial_noise.py --out benchmarks/results             # about half an hour on a CPU
    python benchmarks/initial_noise.py --out benchmarks/results --report    # tables from what is there

guide: super-resolution x4, x_0 optimised toward the mean of eight other seeds' restorations, up to 0.2 cycles per
pixel, and toward 1.5 times its sharpness. ``energy`` is the mean
squared gradient of an image as a share of the truth's: below 1 is blurred. steer: colourisation toward the palette of
another photograph; ``palette`` is the distance of the colours to it (losses.PaletteDistance, times 1000), ``A x - y``
the root mean square by which the grey picture changed, in grey levels. invert: the noise that reproduces the
photograph, at S = 50, and what DDIM inversion as published, explicit and serial, comes back with. One sheet of pictures
for each. A row is one line of initial_noise.jsonl; rows that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from photos import held_out_photos
from torch import Tensor

from deqir import Restorer, load_prior, operators, psnr, ssim
from deqir.guides import mean_guide
from deqir.images import write_image
from deqir.initialization import NoiseOptimizer
from deqir.inversion import generate, invert
from deqir.losses import Candidate, Distance, PaletteDistance, Sharpness
from deqir.sheet import Picture, draw_sheet

PALETTES = {"astronaut": "flower", "coffee": "china", "chelsea": "coffee", "china": "chelsea", "flower": "astronaut"}
KEYS = ("study", "photo", "side", "steps")


def energy(image: Tensor) -> float:
    """Mean squared gradient."""
    return float(image.diff(dim=-1).square().mean() + image.diff(dim=-2).square().mean())


def figures(image: Tensor, truth: Tensor, name: str) -> dict:
    """PSNR, SSIM and gradient energy, the last as a share of the truth's."""
    shown = image.clamp(0, 1)
    values = {
        "psnr": float(psnr(shown, truth)),
        "ssim": float(ssim(shown, truth)),
        "energy": energy(shown) / energy(truth),
    }
    if not all(math.isfinite(value) for value in values.values()):
        raise SystemExit(f"{name} is not finite, so there is no result")
    return {f"{name}_{key}": round(value, 4) for key, value in values.items()}


def guided(truth: Tensor, args: argparse.Namespace, photo: str) -> tuple[dict, list[Picture]]:
    """Super-resolution, plain and optimised toward the mean of eight."""
    operator = operators.SuperResolution(4)
    restorer = Restorer(load_prior(), operator, steps=args.steps, eta=0.0, solver="serial")
    y = operator.forward(truth)
    plain = restorer.restore(y).image
    guide = mean_guide(restorer, y)
    aims = [(1.0, Distance(guide, below=0.2)), (3e-3, Sharpness(guide, 1.5))]
    search = NoiseOptimizer(restorer, aims, iterations=args.iterations)
    found = search.run(y)
    images = {"plain": plain, "guide": guide, "optimised": found.image}
    row: dict = {"iterations": len(found.losses)}
    for name, image in images.items():
        row |= figures(image, truth, name)
    pictures = [Picture("observation", operator.pinv(y), photo), Picture("truth", truth)]
    notes = {name: f"{row[f'{name}_psnr']:.2f} dB\nenergy {row[f'{name}_energy']:.2f}" for name in images}
    return row, pictures + [Picture(name, image, notes[name]) for name, image in images.items()]


def steered(truth: Tensor, args: argparse.Namespace, photo: str) -> tuple[dict, list[Picture]]:
    """Colourisation, plain and toward another photograph's palette."""
    reference = held_out_photos(args.side)[PALETTES[photo]][None]
    operator = operators.Colorization()
    restorer = Restorer(load_prior(), operator, steps=args.steps, eta=0.0, solver="serial")
    y = operator.forward(truth)
    plain = restorer.restore(y)
    distance = PaletteDistance(reference)
    found = NoiseOptimizer(restorer, [(1.0, distance)], iterations=2 * args.iterations).run(y)
    row: dict = {"reference": PALETTES[photo], "iterations": len(found.losses)}
    for name, result in (("plain", plain), ("steered", found.restoration)):
        scored = Candidate(result.image, result.image, y, operator)
        row[f"{name}_palette"] = round(1000 * float(distance(scored)), 4)
        row[f"{name}_measurement"] = float(result.measurement_error) * 255
    notes = {name: f"palette {row[f'{name}_palette']:.2f}" for name in ("plain", "steered")}
    pictures = [Picture("observation", y, photo), Picture("reference", reference, PALETTES[photo])]
    pictures += [Picture("plain", plain.image, notes["plain"]), Picture("steered", found.image, notes["steered"])]
    return row, [*pictures, Picture("truth", truth)]


def inverted(truth: Tensor, args: argparse.Namespace, photo: str) -> tuple[dict, list[Picture]]:
    """Inversion as an equilibrium and, for comparison, explicit DDIM inversion."""
    restorer = Restorer(load_prior(), operators.Unobserved(), steps=50, solver="serial")
    found = invert(restorer, truth)
    naive = generate(restorer, explicit_inversion(restorer, truth))
    row = {
        "round_trip": round(float(found.round_trip), 2),
        "sweeps": found.sweeps,
        "nfe": found.nfe[0],
        "explicit_round_trip": round(float(psnr(naive, truth)), 2),
    }
    pictures = [
        Picture("photo", truth, photo),
        Picture("noise", found.noise / 6 + 0.5, f"std {float(found.noise.std()):.2f}"),
    ]
    pictures += [Picture("made of it", found.image, f"{row['round_trip']:.1f} dB\n{found.sweeps} sweeps")]
    return row, [*pictures, Picture("explicit DDIM", naive, f"{row['explicit_round_trip']:.1f} dB\n50 calls")]


def explicit_inversion(restorer: Restorer, image: Tensor) -> Tensor:
    """DDIM inversion as published: every step backwards with the noise predicted one state nearer to the image."""
    levels = restorer.prior.schedule.levels(restorer.steps, restorer.spacing)
    alphas, x = levels.alphas.tolist(), 2 * image - 1
    for i in reversed(range(restorer.steps)):
        scale = math.sqrt(alphas[i + 1] / alphas[i])
        share = math.sqrt(1 - alphas[i + 1]) - scale * math.sqrt(1 - alphas[i])
        with torch.no_grad():
            x = (x - share * restorer.prior(x, levels.timesteps[i].expand(len(x)))) / scale
    return x


STUDIES = {"guide": guided, "steer": steered, "invert": inverted}


def run(args: argparse.Namespace, path: Path) -> None:
    """All rows that ``path`` lacks, and a sheet of pictures for every study that was run whole."""
    done = {tuple(row[key] for key in KEYS) for row in read(path)}
    photos = held_out_photos(args.side)
    for study in args.studies:
        sheet = []
        for photo in args.photos:
            values = (study, photo, args.side, 50 if study == "invert" else args.steps)
            if values in done:
                continue
            started = time.perf_counter()
            row, pictures = STUDIES[study](photos[photo][None], args, photo)
            row = dict(zip(KEYS, values, strict=True)) | row | {"seconds": round(time.perf_counter() - started, 1)}
            sheet.append(pictures)
            with path.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(row, flush=True)
        if len(sheet) == len(args.photos):
            write_image(args.out / f"initial_noise_{study}.png", draw_sheet(sheet))


def read(path: Path) -> list[dict]:
    """The rows so far; a line that an interrupt cut short is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def table(rows: list[dict]) -> str:
    """Markdown: a row a photograph, and the mean of what can be averaged."""
    columns = [key for key in rows[0] if key not in ("study", "side", "steps", "seconds")]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in columns if isinstance(rows[0][key], (int, float))}
    for row in [*rows, {"photo": "mean"} | mean]:
        cells = [row.get(key, "") for key in columns]
        lines.append(
            "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"
        )
    return "\n".join(lines) + "\n"


def report(path: Path, out: Path) -> None:
    """initial_noise.md: one table a study."""
    rows = read(path)
    if not rows:
        raise SystemExit(f"{path} holds no rows; run the benchmark first")
    parts = ["# Initial noise\n\nSee benchmarks/initial_noise.py.\n"]
    for study in STUDIES:
        own = [row for row in rows if row["study"] == study]
        if own:
            parts += [f"## {study}, {own[0]['side']} pixels, {own[0]['steps']} steps\n", table(own)]
    (out / "initial_noise.md").write_text("\n".join(parts))
    print("\n".join(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--report", action="store_true", help="only write the tables")
    parser.add_argument("--studies", nargs="+", default=list(STUDIES), choices=list(STUDIES))
    parser.add_argument("--photos", nargs="+", default=list(PALETTES), choices=list(PALETTES))
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=6)
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "initial_noise.jsonl"
    if not args.report:
        run(args, path)
    report(path, args.out)


if __name__ == "__main__":
    main()
