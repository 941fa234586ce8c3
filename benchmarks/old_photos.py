"""How well damage is detected and blur is measured, against known damage and known blur.

    pip install ".[benchmark]"
    python benchmarks/old_photos.py --out benchmarks/results

256-pixel crops of five photographs. Damage: 6 scratches and 30 specks (``deqir.ageing``), two seeds; precision: the
share of the detected pixels within 2 pixels of damage; recall: the share of the damaged pixels that is detected. Blur:
Gaussian, of the photographs as they are, which have some of their own; the noise is estimated, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from photos import held_out_photos
from torch import Tensor
from torch.nn.functional import max_pool2d

from deqir.ageing import FADED, Ageing
from deqir.defects import DefectDetector
from deqir.diagnosis import diagnose
from deqir.noise import generator

WIDTHS = (0.0, 0.7, 1.0, 1.5, 2.0, 3.0)
NOISES = (0.0, 0.02)


def detected(photo: Tensor, ageing: Ageing) -> tuple[float, float]:
    aged = ageing.apply(photo)
    found, true = DefectDetector().observed(aged.image) == 0, aged.mask == 0
    near = max_pool2d(true.float(), 5, 1, 2) > 0
    return float((found & near).sum() / found.sum().clamp(min=1)), float((found & true).sum() / true.sum())


def detection_rows(photos: dict[str, Tensor]) -> list[str]:
    rows = []
    for name, photo in photos.items():
        share = float((DefectDetector().observed(photo[None]) == 0).double().mean())
        cells = [f"{100 * share:.2f} %"]
        for fading, grain in ((FADED, 0.03), (None, 0.0)):
            pairs = [detected(photo[None], Ageing(fading, grain, seed=seed)) for seed in (0, 1)]
            cells += [f"{sum(pair[k] for pair in pairs) / len(pairs):.2f}" for k in (0, 1)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def blurred(photo: Tensor, width: float, noise: float) -> Tensor:
    from scipy.ndimage import gaussian_filter

    soft = torch.from_numpy(gaussian_filter(photo.numpy(), (0, width, width)))
    return soft + noise * torch.randn(soft.shape, generator=generator(0, "observation"))


def estimated(photo: Tensor, width: float) -> str:
    blur = diagnose(photo).blur
    if blur is None:
        return "?"
    return f"{blur.value:.2f}" + ("" if blur.low <= width <= blur.high else " (!)")


def blur_rows(photos: dict[str, Tensor]) -> list[str]:
    rows = []
    for noise in NOISES:
        for name, photo in photos.items():
            cells = [estimated(blurred(photo, width, noise), width) for width in WIDTHS]
            rows.append(f"| {noise} | {name} | {' | '.join(cells)} |")
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    photos = held_out_photos()
    text = ["Detection of damage; (a) faded, grain 0.03, (b) not faded, no grain.\n"]
    text += ["| photo | found in the clean photo | (a) precision | recall | (b) precision | recall |"]
    text += ["|---|---|---|---|---|---|", *detection_rows(photos)]
    text += ["\nEstimated width of a Gaussian blur, in pixels; (!): the interval does not hold the truth.\n"]
    text += [f"| noise | photo | {' | '.join(map(str, WIDTHS))} |", f"|---|---{'|---' * len(WIDTHS)}|"]
    text += blur_rows(photos)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "old-photos.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
