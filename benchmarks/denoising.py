"""Denoising five photographs the built-in prior never saw, with the noise level given and estimated.

    pip install ".[benchmark]"
    python benchmarks/denoising.py --out benchmarks/results

128-pixel centre crops with Gaussian noise (seed 0, not clipped), restored serially with DDNM+; figures against the
truth after clipping. Non-local means and wavelets (BayesShrink in YCbCr) are scikit-image's, with the true level and
the settings its gallery advises. "One call" is the clean image that the network itself estimates from the noisy one,
at the timestep of that noise: no chain, no sample of the posterior but its mean, which is what PSNR asks for.
The second table holds the estimated levels beside scikit-image's ``estimate_sigma``.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from photos import held_out_photos
from torch import Tensor

from deqir import Denoiser, Restorer, load_prior, psnr
from deqir.classical import non_local_means
from deqir.noise import generator
from deqir.noise_estimation import estimate_noise
from deqir.operators import Denoising, random_mask

SIGMAS = (0.05, 0.1)
ESTIMATED_SIGMAS = (0.01, 0.02, 0.05, 0.1, 0.2)


def noisy(truth: Tensor, sigma: float) -> Tensor:
    return truth + sigma * torch.randn(truth.shape, generator=generator(0, "observation"))


def wavelets(y: Tensor, sigma: float) -> Tensor:
    from skimage.restoration import denoise_wavelet

    options = {"channel_axis": 0, "convert2ycbcr": True, "method": "BayesShrink", "rescale_sigma": True}
    return torch.stack([torch.from_numpy(denoise_wavelet(i.numpy(), sigma=sigma, **options)).float() for i in y])


@torch.no_grad()
def one_call(prior: Denoiser, y: Tensor, sigma: float) -> Tensor:
    alphas = prior.schedule.alphas_cumprod
    timestep = int((((1 - alphas) / alphas).sqrt() - 2 * sigma).abs().argmin())
    a = float(alphas[timestep])
    x = a**0.5 * (2 * y - 1)
    e = prior(x, torch.full((len(y),), timestep))
    return ((x - (1 - a) ** 0.5 * e) / a**0.5 + 1) / 2


def chain(prior: Denoiser, y: Tensor, levels: list[float], steps: int, eta: float) -> Tensor:
    """Each photo with its own noise level."""
    options = {"steps": steps, "eta": eta, "solver": "serial"}
    restorers = [Restorer(prior, Denoising(), noise=level, **options) for level in levels]
    return torch.cat([r.restore(image[None]).image for r, image in zip(restorers, y, strict=True)])


def denoising_rows(prior: Denoiser, truth: Tensor, steps: int) -> list[str]:
    rows = []
    for sigma in SIGMAS:
        y = noisy(truth, sigma)
        given, estimated = [sigma] * len(y), [estimate_noise(image) for image in y]
        restored = {
            "the noisy photo": y,
            "wavelets": wavelets(y, sigma),
            "non-local means": non_local_means(y, sigma),
            f"deqir, {steps} steps, eta 0.85": chain(prior, y, given, steps, 0.85),
            f"deqir, {steps} steps, eta 0.85, noise auto": chain(prior, y, estimated, steps, 0.85),
            f"deqir, {steps} steps, eta 0": chain(prior, y, given, steps, 0.0),
            f"deqir, {steps} steps, eta 0, noise auto": chain(prior, y, estimated, steps, 0.0),
            "one call": one_call(prior, y, sigma),
        }
        for name, image in restored.items():
            values = psnr(image.clamp(0, 1), truth).tolist()
            if not all(math.isfinite(value) for value in values):
                raise SystemExit(f"{name}: a figure is not finite, so there is no result")
            cells = " | ".join(f"{value:.2f}" for value in [*values, sum(values) / len(values)])
            rows.append(f"| {sigma} | {name} | {cells} |")
            print(rows[-1], flush=True)
    return rows


def estimate_rows(truth: Tensor) -> list[str]:
    from skimage.restoration import estimate_sigma

    mask = random_mask(*truth.shape[-2:], 0.5, torch.Generator().manual_seed(0))[0]
    grey = truth.mean(1, keepdim=True)
    rows = []
    for sigma in ESTIMATED_SIGMAS:
        y, y_grey = noisy(truth, sigma), noisy(grey, sigma)
        estimates = {
            "colour": [estimate_noise(image) for image in y],
            "colour, half of the pixels known": [estimate_noise(image, mask) for image in y],
            "colour, scikit-image": [float(estimate_sigma(i.numpy(), channel_axis=0, average_sigmas=True)) for i in y],
            "grey": [estimate_noise(image) for image in y_grey],
            "grey, scikit-image": [float(estimate_sigma(image[0].numpy())) for image in y_grey],
        }
        rows += [f"| {sigma} | {name} | {' | '.join(f'{v:.4f}' for v in vs)} |" for name, vs in estimates.items()]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--side", type=int, default=128)
    args = parser.parse_args()
    photos = held_out_photos(args.side)
    truth = torch.stack(list(photos.values()))
    names, rule = " | ".join(photos), "|---" * len(photos)
    text = [f"PSNR (dB), {args.side}-pixel crops.\n", f"| noise | method | {names} | mean |", f"|---|---{rule}|---|"]
    text += denoising_rows(load_prior(), truth, args.steps)
    text += ["\nEstimated noise level, 256-pixel crops.\n", f"| noise | estimated from | {names} |", f"|---|---{rule}|"]
    text += estimate_rows(torch.stack(list(held_out_photos().values())))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "denoising.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
