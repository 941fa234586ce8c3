"""Train the built-in prior: a small convolutional U-Net with v-prediction on random photograph crops.

    accelerate launch training/train.py --photographs WORK/photographs --run WORK/run

Resumable (the same command goes on from the last checkpoint), seeded, with an exponential moving average of the
weights.  The learning rate is warmed up, held, and decays linearly to zero over the last part of the run; the last
stage uses larger crops, so that the normalisation statistics meet those of whole photographs.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader

from crops import PhotographCrops

ARCHITECTURE = {
    "sample_size": 64,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (32, 64, 128, 192),
    "down_block_types": ("DownBlock2D",) * 4,
    "up_block_types": ("UpBlock2D",) * 4,
    "add_attention": False,
    "norm_num_groups": 8,
}
SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, together with the photographs."""

    steps: int = 9_000
    batch_size: int = 8
    crop: int = 64
    large_crop: int = 128
    large_from: float = 0.85
    learning_rate: float = 5e-4
    warmup: int = 200
    decay_from: float = 0.45
    ema_decay: float = 0.999
    focus_below: int = 300
    focus_fraction: float = 0.5
    late_from: float = 0.7
    late_focus_below: int = 200
    late_focus_fraction: float = 0.7
    optimizer: str = "muon"
    seed: int = 0

    def focus(self, step: int) -> tuple[int, float]:
        """The timesteps below which training dwells at ``step``, and the share of crops that get one of them."""
        if step < self.late_from * self.steps:
            return self.focus_below, self.focus_fraction
        return self.late_focus_below, self.late_focus_fraction

    def rate(self, step: int) -> float:
        """Learning-rate factor in [0, 1] at ``step``."""
        decay_start = self.decay_from * self.steps
        cooled = 1.0 if step < decay_start else (self.steps - step) / max(1.0, self.steps - decay_start)
        return min(1.0, (step + 1) / self.warmup) * max(0.0, cooled)


class MatrixOptimizer:
    """torch.optim.Muon for the convolution and linear weights (seen as matrices), AdamW for the rest."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe):
        inner = [p for n, p in model.named_parameters() if p.ndim >= 2 and "conv_in" not in n and "conv_out" not in n]
        chosen = {id(p) for p in inner}
        rest = [p for p in model.parameters() if id(p) not in chosen]
        self.pairs = [(p, torch.nn.Parameter(self.matrix(p.data))) for p in inner]
        muon = torch.optim.Muon(
            [m for _, m in self.pairs], lr=recipe.learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        )
        adam = torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
        self.optimizers = [muon, adam]

    @staticmethod
    def matrix(tensor: torch.Tensor) -> torch.Tensor:
        """A view of a channels-last convolution weight, or of a linear one, as a matrix: it shares the memory."""
        view = tensor.permute(0, 2, 3, 1).flatten(1) if tensor.ndim == 4 else tensor
        if view.data_ptr() != tensor.data_ptr():
            raise RuntimeError("weights must be channels-last before the optimizer is made")
        return view

    def step(self) -> None:
        for parameter, matrix in self.pairs:
            matrix.grad = (
                None
                if parameter.grad is None
                else self.matrix(
                    parameter.grad.contiguous(memory_format=torch.channels_last)
                    if parameter.ndim == 4
                    else parameter.grad
                )
            )
        for optimizer in self.optimizers:
            optimizer.step()


def make_optimizers(model: torch.nn.Module, recipe: Recipe) -> tuple[object, list[torch.optim.Optimizer]]:
    if recipe.optimizer == "muon":
        both = MatrixOptimizer(model, recipe)
        return both, both.optimizers
    adam = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    return adam, [adam]


def velocity_loss(model, images, scheduler, generator, focus: tuple[int, float]) -> torch.Tensor:
    """Mean squared error of the predicted velocity; timesteps are uniform, but for the share that ``focus`` lowers."""
    count, last = len(images), scheduler.config.num_train_timesteps
    below, share = focus
    focused = torch.rand(count, generator=generator) < share
    low = torch.randint(0, below, (count,), generator=generator)
    timesteps = torch.where(focused, low, torch.randint(0, last, (count,), generator=generator)).to(images.device)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    noisy = scheduler.add_noise(images, noise, timesteps)
    target = scheduler.get_velocity(images, noise, timesteps)
    prediction = model(noisy.contiguous(memory_format=torch.channels_last), timesteps).sample
    return (prediction.float() - target).square().mean()


class Training:
    """The state of one run: model, average, optimizer and counters, saved and restored as a whole."""

    def __init__(self, recipe: Recipe, run: Path):
        self.recipe, self.run = recipe, run
        torch.manual_seed(recipe.seed)
        self.accelerator = Accelerator(mixed_precision="bf16")
        model = UNet2DModel(**ARCHITECTURE).to(self.accelerator.device, memory_format=torch.channels_last)
        self.optimizer, self.optimizers = make_optimizers(model, recipe)
        self.model = self.accelerator.prepare(model)
        self.average = EMAModel(model.parameters(), decay=recipe.ema_decay, use_ema_warmup=True, power=0.75)
        self.scheduler = DDPMScheduler(**SCHEDULE, prediction_type="v_prediction")
        self.step, self.seconds = 0, 0.0

    @property
    def bare(self) -> UNet2DModel:
        return self.accelerator.unwrap_model(self.model)

    def save(self) -> None:
        state = {
            "model": self.bare.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "seconds": self.seconds,
        }
        self.run.mkdir(parents=True, exist_ok=True)
        torch.save(state, self.run / "state.tmp")
        (self.run / "state.tmp").replace(self.run / "state.pt")
        (self.run / "recipe.json").write_text(json.dumps(asdict(self.recipe), indent=2))

    def resume(self) -> None:
        if (self.run / "state.pt").exists():
            state = torch.load(self.run / "state.pt", map_location=self.accelerator.device, weights_only=True)
            self.bare.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.seconds = state["step"], state["seconds"]

    def update(self, images: torch.Tensor) -> float:
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.learning_rate * self.recipe.rate(self.step)
        with self.accelerator.autocast():
            loss = velocity_loss(self.model, images, self.scheduler, generator, self.recipe.focus(self.step))
        self.model.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.average.step(self.bare.parameters())
        self.step += 1
        return loss.item()


def stage(training: Training, photographs: Path, crop: int, until: int, save_minutes: float) -> None:
    """Train with crops of ``crop`` pixels until step ``until``; the pixels per batch stay the same in all stages."""
    recipe = training.recipe
    batch = max(1, recipe.batch_size * recipe.crop**2 // crop**2)
    steps = until - training.step
    if steps <= 0:
        return
    crops = PhotographCrops(photographs, crop, steps * batch, recipe.seed + crop, first=training.step * batch)
    losses: list[float] = []
    saved = started = time.monotonic()
    for images in DataLoader(crops, batch):
        losses.append(training.update(images.to(training.accelerator.device)))
        now = time.monotonic()
        training.seconds, started = training.seconds + now - started, now
        if training.step % 100 == 0:
            mean = sum(losses[-500:]) / len(losses[-500:])
            print(f"step {training.step} loss {mean:.5f} minutes {training.seconds / 60:.1f}", flush=True)
        if now - saved > 60 * save_minutes:
            training.save()
            saved = now
    training.save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="folder made by prepare.py")
    parser.add_argument("--run", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--save-minutes", type=float, default=5.0)
    for name, value in asdict(Recipe()).items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    args = vars(parser.parse_args())
    photographs, run, save_minutes = args.pop("photographs"), args.pop("run"), args.pop("save_minutes")
    recipe = Recipe(**args)
    training = Training(recipe, run)
    training.resume()
    switch = int(recipe.large_from * recipe.steps)
    stage(training, photographs, recipe.crop, switch, save_minutes)
    stage(training, photographs, recipe.large_crop, recipe.steps, save_minutes)


if __name__ == "__main__":
    main()
