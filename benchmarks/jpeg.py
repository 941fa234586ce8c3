"""JPEG files as noise of estimated level and, as in DDRM-JPEG, as a nonlinear operator, against the file itself.

    pip install ".[benchmark]"
    python benchmarks/jpeg.py --out benchmarks/results

Centre crops of five photographs that the built-in prior never saw, saved by Pillow (4:2:0). "Noise" is task denoise
(DDNM+) with the level that the quantisation tables tell (``deqir.images.read_quantization``), with the estimate from
patches, and with the true root-mean-square error. "Operator" is a serial chain of the same steps and eta that corrects
the clean estimate to ``xh + D(y) - D(E(xh))``, E encoding and D decoding (Kawar, Song, Ermon and Elad, arXiv
2209.11888); "cell" moves its coefficients into the quantisation cells of the file, no further. Only what wins is in the
library; this script keeps the comparison.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from photos import held_out_photos
from PIL import Image
from scipy.fft import dctn, idctn
from torch import Tensor

from deqir import Denoiser, Restorer, load_prior, psnr, ssim
from deqir.images import read_image, read_quantization
from deqir.noise import generator
from deqir.noise_estimation import estimate_noise
from deqir.operators import Denoising

QUALITIES = (10, 20, 40)
TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
ETA = 0.85


@dataclass(frozen=True)
class Codec:
    """JPEG's quantisation of images whose sides are multiples of 16, chroma halved; planes in levels around 0."""

    tables: tuple[np.ndarray, ...]

    def coefficients(self, image: Tensor) -> list[np.ndarray]:
        planes = np.tensordot(TO_YCC, 255 * image.double().numpy(), 1)
        planes[0] -= 128
        return [_blocks(planes[0]), *(_blocks(_halved(plane)) for plane in planes[1:])]

    def quantized(self, coefficients: list[np.ndarray]) -> list[np.ndarray]:
        return [np.round(c / self._table(k)) * self._table(k) for k, c in enumerate(coefficients)]

    def into_cells(self, coefficients: list[np.ndarray], code: list[np.ndarray]) -> list[np.ndarray]:
        halves = [self._table(k) / 2 for k in range(3)]
        return [np.clip(c, y - h, y + h) for c, y, h in zip(coefficients, code, halves, strict=True)]

    def image(self, coefficients: list[np.ndarray]) -> Tensor:
        planes = [_plane(c) for c in coefficients]
        planes[0] = planes[0] + 128
        full = [planes[0], *(plane.repeat(2, 0).repeat(2, 1) for plane in planes[1:])]
        return torch.from_numpy(np.tensordot(np.linalg.inv(TO_YCC), np.stack(full), 1) / 255).float()

    def _table(self, plane: int) -> np.ndarray:
        return self.tables[min(plane, len(self.tables) - 1)]


def _blocks(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    blocks = plane.reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)
    return dctn(blocks, axes=(2, 3), norm="ortho")


def _plane(coefficients: np.ndarray) -> np.ndarray:
    down, across = coefficients.shape[:2]
    return idctn(coefficients, axes=(2, 3), norm="ortho").swapaxes(1, 2).reshape(8 * down, 8 * across)


def _halved(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    return plane.reshape(height // 2, 2, width // 2, 2).mean((1, 3))


@torch.no_grad()
def operator_chain(prior: Denoiser, codec: Codec, code: list[np.ndarray], size: int, steps: int, cell: bool) -> Tensor:
    """The serial chain whose correction is that of the encoder and decoder; an image (3, size, size) in [0, 1]."""
    levels = prior.schedule.levels(steps)
    draw = generator(0, "chain")
    x = torch.randn(1, 3, size, size, generator=draw)
    for step, timestep in enumerate(levels.timesteps.tolist()):
        a, following = levels.step(step)
        e = prior(x, torch.tensor([timestep])).float()
        clean = ((x - (1 - a) ** 0.5 * e) / a**0.5 + 1) / 2
        own = codec.coefficients(clean[0])
        target, base = (codec.into_cells(own, code), own) if cell else (code, codec.quantized(own))
        clean = clean + (codec.image(target) - codec.image(base))
        fresh = (1 - ETA**2) ** 0.5 * e + ETA * torch.randn(x.shape, generator=draw)
        x = following**0.5 * (2 * clean - 1) + (1 - following) ** 0.5 * fresh
    return ((x + 1) / 2)[0]


def restored(prior: Denoiser, truth: Tensor, quality: int, steps: int) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray((truth.permute(1, 2, 0).numpy() * 255).round().astype("uint8")).save(path, quality=quality)
        y, quantization = read_image(path), read_quantization(path)
    levels = {
        "tables": quantization.noise,
        "patches": estimate_noise(y),
        "true": float((y - truth).square().mean().sqrt()),
    }
    codec = Codec(quantization.tables)
    code = codec.quantized(codec.coefficients(truth))
    images = {"the file": y}
    for name, level in levels.items():
        restorer = Restorer(prior, Denoising(), steps, ETA, level, "serial")
        images[f"noise, {name}"] = restorer.restore(y[None]).image[0]
    for name, cell in (("operator, DDRM-JPEG", False), ("operator, cell", True)):
        images[name] = operator_chain(prior, codec, code, truth.shape[1], steps, cell)
    return images


def rows(prior: Denoiser, photos: dict[str, Tensor], quality: int, steps: int) -> list[str]:
    values: dict[str, list[float]] = {}
    similar: dict[str, list[float]] = {}
    for truth in photos.values():
        for name, image in restored(prior, truth, quality, steps).items():
            shown = image.clamp(0, 1)[None]
            values.setdefault(name, []).append(float(psnr(shown, truth[None])[0]))
            similar.setdefault(name, []).append(float(ssim(shown, truth[None])[0]))
    lines = []
    for name, figures in values.items():
        if not all(math.isfinite(figure) for figure in figures):
            raise SystemExit(f"{name}: a figure is not finite, so there is no result")
        mean = sum(figures) / len(figures), sum(similar[name]) / len(figures)
        cells = " | ".join(f"{figure:.2f}" for figure in figures)
        lines.append(f"| {quality} | {name} | {cells} | {mean[0]:.2f} | {mean[1]:.3f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--side", type=int, default=64)
    args = parser.parse_args()
    photos, prior = held_out_photos(args.side), load_prior()
    text = [f"PSNR (dB), {args.side}-pixel crops, {args.steps} steps; the last column is mean SSIM.\n"]
    text += [f"| quality | method | {' | '.join(photos)} | mean | SSIM |", f"|---|---{'|---' * (len(photos) + 2)}|"]
    for quality in QUALITIES:
        text += rows(prior, photos, quality, args.steps)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "jpeg.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
