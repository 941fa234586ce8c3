"""Write the model card of the built-in prior: measured on held-out photographs, listed from photographs.json.

python training/card.py --run WORK/run --prior src/deqir/priors/builtin --hardware "2 CPU cores"
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch

from deqir.priors import load_diffusers_folder
from train import ARCHITECTURE

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from photos import held_out_photos

TIMESTEPS = (0, 10, 30, 60, 100, 200, 400, 700)


def denoising_errors(prior, side: int) -> list[tuple[int, float, float, float]]:
    """(timestep, noise, error, PSNR) with noise and error of the clean image in grey levels, mean over the photos."""
    clean = torch.stack(list(held_out_photos(side).values())) * 2 - 1
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    rows = []
    for timestep in TIMESTEPS:
        a = prior.schedule.alphas_cumprod[timestep].float()
        noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
        with torch.no_grad():
            predicted = prior(noisy, torch.full((len(clean),), timestep))
        estimate = (noisy - (1 - a).sqrt() * predicted) / a.sqrt()
        error = (estimate.clamp(-1, 1) - clean).square().mean((1, 2, 3)).sqrt() * 127.5
        if not bool(error.isfinite().all()):
            raise SystemExit(f"the prior gives NaN at timestep {timestep}")
        decibels = float((20 * (255 / error).log10()).mean())
        rows.append((timestep, math.sqrt((1 - a) / a) * 127.5, float(error.mean()), decibels))
    return rows


def photographs() -> str:
    listing = json.loads(Path(__file__).with_name("photographs.json").read_text())["packages"]
    lines = ["| Debian package | photograph | author | licence |", "|---|---|---|---|"]
    for package, files in listing.items():
        for path, (author, licence) in files.items():
            lines.append(f"| {package} | {path} | {author} | {licence} |")
    return "\n".join(lines)


def card(run: Path, prior_folder: Path, hardware: str, history: str, side: int) -> str:
    state = torch.load(run / "state.pt", map_location="cpu", weights_only=True)
    recipe = json.loads((run / "recipe.json").read_text())
    prior = load_diffusers_folder(prior_folder)
    parameters = sum(p.numel() for p in prior.model.parameters())
    switch = int(recipe["large_from"] * recipe["steps"])
    large = max(1, recipe["batch_size"] * recipe["crop"] ** 2 // recipe["large_crop"] ** 2)
    steps = state["step"]
    crops = recipe["batch_size"] * min(steps, switch)
    large_crops = large * max(0, steps - switch)
    errors = "\n".join(f"| {t} | {n:.1f} | {e:.2f} | {d:.2f} |" for t, n, e, d in denoising_errors(prior, side))
    channels = ", ".join(map(str, ARCHITECTURE["block_out_channels"]))
    return f"""# Model card: deqir's built-in prior

An unconditional diffusion model of small colour photographs, made so that deqir restores a photo right after it is
installed, without a download. It is small; a larger prior restores better.

## Architecture
A diffusers `UNet2DModel` of {parameters:,} parameters: {channels} channels,
one residual block a level, no attention, group normalisation. It is purely convolutional, so any size will do.
It predicts the velocity (v-prediction) on DDPM's linear schedule of 1000 timesteps. Stored in float16.

## Training
{steps:,} steps on {hardware}, {state["seconds"] / 60:.0f} minutes: {crops:,} crops of {recipe["crop"]} pixels and
{large_crops:,} crops of {recipe["large_crop"]} pixels, bfloat16 autocast, {recipe["optimizer"]} optimizer, learning
rate {recipe["learning_rate"]:g}, exponential moving average {recipe["ema_decay"]:g}, seed {recipe["seed"]}.
The recipe is `training/` in the repository; its README gives the commands. {history}

## Denoising error
Mean over 256-pixel centre crops of five photographs that were kept out of training (scikit-image's astronaut, coffee
and chelsea, scikit-learn's china and flower): root mean square error of the clean image that the network estimates in
one call, in grey levels of 0..255.

| timestep | noise (grey levels) | error (grey levels) | PSNR (dB) |
|---|---|---|---|
{errors}

## Photographs
All are in Debian 12's wallpaper packages; authors and licences as the packages' copyright files state them. Each was
reduced to long sides of 400 to 1600 pixels.

{photographs()}

Kept out of training, for honest evaluation: the bundled demo photograph (`friends_by_Aitzol_Berasategi.jpg`), and all
images of scikit-image, scikit-learn, SciPy, matplotlib and imageio.

## Limits
It has seen a few dozen photographs, mostly of nature: no text, hardly any people. It completes textures and edges at
the scale of tens of pixels, and does not know what faces or objects look like: large holes are filled smoothly,
colours it cannot see are guessed dull, and it invents no detail at large magnification.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--prior", type=Path, required=True)
    parser.add_argument("--hardware", required=True)
    parser.add_argument("--history", default="", help="one sentence on interruptions and changes of the run")
    parser.add_argument("--side", type=int, default=256)
    args = parser.parse_args()
    (args.prior / "MODEL_CARD.md").write_text(card(args.run, args.prior, args.hardware, args.history, args.side))


if __name__ == "__main__":
    main()
