"""Small exact parts that tests share."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor

from deqir import operators
from deqir.chain import SamplingChain
from deqir.cli import main
from deqir.consistency import DDNM
from deqir.images import write_image
from deqir.noise import SeededNoise
from deqir.operators import LinearOperator
from deqir.priors import DiffusersDenoiser
from deqir.schedule import NoiseSchedule

pytest_plugins = ["scheduling", "webui_fixtures"]

torch.set_num_threads(1)

settings.register_profile("bounded", derandomize=True, max_examples=60, deadline=None, database=None)
settings.register_profile("deep", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("bounded")


@dataclass
class SmoothDenoiser:
    """A nonlinear stand-in for a network: the exact noise of a Gaussian prior, bent by a sine and blurred a little."""

    channels: int = 3
    name: str = "smooth"
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule.linear)
    variance: float = 0.2
    bend: float = 0.2
    calls: list[int] = field(default_factory=list)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.calls.append(len(x))
        a = self.schedule.alphas_cumprod[timesteps].to(x.dtype).view(-1, 1, 1, 1)
        mixed = (x + x.roll(1, -1) + x.roll(1, -2)) / 3
        return (1 - a).sqrt() / (a * self.variance + 1 - a) * (x + self.bend * torch.sin(2 * mixed))

    def to(self, device: torch.device, dtype: torch.dtype) -> SmoothDenoiser:
        return self


@dataclass
class Cramped(SmoothDenoiser):
    """A denoiser on a device that holds ``room`` images; ``calls`` has the calls that failed, too."""

    room: int = 4

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        if len(x) > self.room:
            self.calls.append(len(x))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().__call__(x, timesteps)


def tiny_unet(seed: int = 0, channels: int = 3):
    """A diffusers UNet2DModel of a few thousand random weights."""
    from diffusers import UNet2DModel

    torch.manual_seed(seed)
    return UNet2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    ).eval()


@pytest.fixture(scope="session")
def network() -> DiffusersDenoiser:
    """A real (tiny, random) network in float64 as a velocity-predicting prior."""
    model = tiny_unet().double().requires_grad_(False)
    return DiffusersDenoiser(model, NoiseSchedule.linear(), "v_prediction", "tiny", torch.float64)


SHAPE = (3, 8, 8)


def all_operators() -> dict[str, LinearOperator]:
    """One of each operator for 3x8x8 images."""
    generator = torch.Generator().manual_seed(0)
    return {
        "sr": operators.SuperResolution(2),
        "sr_bicubic": operators.SuperResolution(2, "bicubic"),
        "inpaint": operators.Inpainting(operators.random_mask(8, 8, 0.5, generator)),
        "colorize": operators.Colorization(),
        "deblur": operators.Deblurring(operators.gaussian_kernel()),
        "deblur_reflect": operators.Deblurring(operators.uniform_kernel(3), "reflect"),
        "cs": operators.CompressedSensing(0.5).at(SHAPE),
        "denoise": operators.Denoising(),
    }


def causal_map(states: Tensor, prefix: Tensor, stop: Tensor) -> Tensor:
    """x_{k+1} = cos(x_k + x_{k-1} / 2), a nonlinear causal map of order two with x_0 = 1; (S, B, 1) to (S, B, 1)."""
    before = torch.cat([torch.ones_like(states[:1]), states[:-1]])
    twice = torch.cat([torch.ones_like(states[:1]), before[:-1]])
    fresh = torch.cos(before + twice / 2)
    index = torch.arange(len(states)).view(-1, 1)
    inside = (index >= prefix) & (index < stop)
    return torch.where(inside[..., None], fresh, states)


def serial_answer(length: int) -> Tensor:
    """The fixed point of ``causal_map``, (S, 1, 1) float64."""
    states = torch.zeros(length, 1, 1, dtype=torch.float64)
    for k in range(length):
        states[k] = causal_map(states, torch.zeros(1), torch.full((1,), length))[k]
    return states


def make_chain(
    denoiser,
    operator: LinearOperator,
    eta: float,
    steps: int = 10,
    images: int = 2,
    max_batch: int | None = None,
    order: int | None = None,
) -> SamplingChain:
    """A float64 chain on 8x8 images with observations of random truths."""
    truth = torch.rand(images, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(7)) * 2 - 1
    noise = SeededNoise(SHAPE, list(range(images)), steps, torch.device("cpu"), torch.float64)
    rule = DDNM(eta)
    levels = denoiser.schedule.levels(steps)
    step = rule.bind(operator, operator.forward(truth), levels, noise if rule.needs_noise else None)
    return SamplingChain(denoiser, step, noise.initial, max_batch, order)


def noises_of(images: int, steps: int = 10) -> SeededNoise:
    """Float64 noise for chains of 8x8 images."""
    return SeededNoise(SHAPE, list(range(images)), steps, torch.device("cpu"), torch.float64)


def observation_of(operator: LinearOperator, sigma: float, images: int = 2) -> Tensor:
    """Float64 observations of random images in [-1, 1], with noise of level ``sigma``."""
    generator = torch.Generator().manual_seed(5)
    truth = torch.rand(images, *SHAPE, dtype=torch.float64, generator=generator) * 2 - 1
    y = operator.forward(truth)
    return y + sigma * torch.randn(y.shape, dtype=torch.float64, generator=generator)


@pytest.fixture(scope="session")
def prior_folder(tmp_path_factory):
    """A tiny network as a real diffusers folder."""
    folder = tmp_path_factory.mktemp("prior") / "tiny"
    tiny_unet().save_pretrained(folder)
    scheduler = {"beta_schedule": "linear", "num_train_timesteps": 1000, "prediction_type": "v_prediction"}
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


@pytest.fixture
def photo(tmp_path):
    """An odd-sized colour photo."""
    path = tmp_path / "photo.png"
    generator = np.random.default_rng(0)
    smooth = generator.random((4, 3, 3)).repeat(5, 0).repeat(7, 1)[:19, :21]
    write_image(path, torch.from_numpy(smooth).permute(2, 0, 1).float())
    return path


@pytest.fixture
def deqir(monkeypatch, capsys, prior_folder):
    """Run ``deqir`` with arguments; returns (exit code, standard output, standard error)."""

    def run(*arguments, prior=True):
        command = ["deqir", *map(str, arguments)]
        if prior and arguments[0] in ("restore", "optimize", "invert", "explain"):
            command += ["--prior", str(prior_folder), "--steps", "3"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


def sentence(text):
    """The one line on standard error that names the problem."""
    lines = [line for line in text.splitlines() if line.startswith("deqir: ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]
