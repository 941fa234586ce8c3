import json
import pickle
from typing import ClassVar

import pytest
import torch

from conftest import tiny_unet
from deqir.errors import ShapeError, UnsupportedCheckpointError
from deqir.priors import DiffusersDenoiser, load_prior
from deqir.priors.denoiser import pad_to_multiple, reflected_indices
from deqir.priors.loading import BUILTIN_FOLDER
from deqir.schedule import NoiseSchedule

SCHEDULER = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000}


@pytest.fixture
def folder(tmp_path):
    """A real diffusers folder, saved by diffusers itself."""
    tiny_unet(seed=3).save_pretrained(tmp_path / "prior")
    (tmp_path / "prior" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    return tmp_path / "prior"


def test_saved_then_loaded_is_the_same_network(folder):
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([10, 900])
    with torch.no_grad():
        expected = tiny_unet(seed=3)(x, t).sample
    torch.testing.assert_close(load_prior(folder)(x, t), expected)


def test_pipeline_folders_load_too(folder, tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(tiny_unet(seed=3), DDPMScheduler(beta_schedule="scaled_linear")).save_pretrained(tmp_path / "pipe")
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([10])
    loaded = load_prior(tmp_path / "pipe")
    torch.testing.assert_close(loaded(x, t), load_prior(folder)(x, t))
    torch.testing.assert_close(
        loaded.schedule.alphas_cumprod,
        DDPMScheduler(beta_schedule="scaled_linear").alphas_cumprod.double(),
        rtol=1e-4,
        atol=1e-6,
    )


def test_pickled_weights_load_without_running_code(folder):
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    torch.save(tiny_unet(seed=3).state_dict(), folder / "diffusion_pytorch_model.bin")
    assert load_prior(folder).channels == 3


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemError('this code must not run')",))


def test_a_malicious_pickle_is_refused(folder):
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"conv_in.weight": Malicious()}))
    with pytest.raises(UnsupportedCheckpointError, match="cannot be read safely"):
        load_prior(folder)


@pytest.mark.parametrize(
    "damage", ["truncate", "rename", "missing", "reshape", "no_config", "bad_config", "other_class"]
)
def test_a_damaged_folder_gets_one_sentence(folder, damage):
    from safetensors.torch import load_file, save_file

    weights, config = folder / "diffusion_pytorch_model.safetensors", folder / "config.json"
    state = load_file(weights)
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "rename":
        state["conv_inn.weight"] = state.pop("conv_in.weight")
        save_file(state, weights)
    elif damage == "missing":
        weights.unlink()
    elif damage == "reshape":
        state["conv_in.bias"] = torch.zeros(5)
        save_file(state, weights)
    elif damage == "no_config":
        config.unlink()
    elif damage == "bad_config":
        config.write_text("{")
    else:
        config.write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    words = {
        "truncate": "cannot be read safely",
        "rename": r"missing: conv_in.weight; unexpected: conv_inn.weight",
        "missing": "has no weights",
        "reshape": "of another shape: conv_in.bias",
        "no_config": "has no config.json",
        "bad_config": "not readable JSON",
        "other_class": "is a UNet2DConditionModel",
    }
    with pytest.raises(UnsupportedCheckpointError, match=words[damage]) as caught:
        load_prior(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_type": "flow"}, "prediction type 'flow'"),
        ({"beta_schedule": "wavy"}, "beta schedule 'wavy'"),
    ],
)
def test_unknown_schedules_are_named(folder, change, message):
    (folder / "scheduler_config.json").write_text(json.dumps(SCHEDULER | change))
    with pytest.raises(UnsupportedCheckpointError, match=message):
        load_prior(folder)


def test_a_missing_folder(tmp_path):
    with pytest.raises(UnsupportedCheckpointError, match="nowhere is not a folder"):
        load_prior(tmp_path / "nowhere")


class Echo(torch.nn.Module):
    """Predicts whatever it is told, as a UNet2DModel would return it."""

    config: ClassVar = {"in_channels": 3, "block_out_channels": (1,)}
    dtype = torch.float64

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x, timesteps):
        from types import SimpleNamespace

        return SimpleNamespace(sample=self.value)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_every_prediction_type_gives_the_noise(prediction):
    schedule = NoiseSchedule.linear()
    clean, noise = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64).unbind()
    timesteps = torch.tensor([20, 800])
    a = schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    said = {"epsilon": noise, "sample": clean, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean}[prediction]
    denoiser = DiffusersDenoiser(Echo(said), schedule, prediction)
    noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
    torch.testing.assert_close(denoiser(noisy, timesteps), noise, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 9), (8, 8), (3, 17)])
def test_any_size_goes_through_the_network(network, size):
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    assert network(x, torch.tensor([5])).shape == x.shape


def test_padding_reflects():
    assert reflected_indices(4, 12).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1]
    assert reflected_indices(1, 3).tolist() == [0, 0, 0]
    x = torch.arange(20.0).view(1, 1, 4, 5)
    padded = pad_to_multiple(x, 8)
    torch.testing.assert_close(padded[..., :4, :], torch.nn.functional.pad(x, (0, 3, 0, 0), "reflect"))
    assert padded.shape == (1, 1, 8, 8)


def test_a_wrong_number_of_channels(network):
    with pytest.raises(ShapeError, match=r"takes \(N, 3, H, W\)"):
        network(torch.randn(1, 4, 8, 8), torch.tensor([1]))


def test_half_precision_runs_under_autocast(network):
    single = DiffusersDenoiser(tiny_unet(), network.schedule, "v_prediction").to(torch.device("cpu"), torch.bfloat16)
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([300])
    with torch.no_grad():
        half = single(x, t)
        full = single.to(torch.device("cpu"), torch.float32)(x, t)
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.1


def test_the_built_in_prior_denoises_a_photo():
    """One network call on the bundled photo must remove most of the noise at three levels."""
    from deqir.demo import demo_photo

    prior = load_prior()
    assert prior.name == "builtin"
    clean = demo_photo() * 2 - 1
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    for timestep, largest_share in ((50, 0.25), (200, 0.06), (500, 0.02)):
        a = prior.schedule.alphas_cumprod[timestep].float()
        noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
        with torch.no_grad():
            predicted = prior(noisy, torch.tensor([timestep]))
        assert (predicted - noise).square().mean() < largest_share


def test_the_built_in_prior_is_small_and_documented():
    weights = BUILTIN_FOLDER / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size <= 16e6
    card = (BUILTIN_FOLDER / "MODEL_CARD.md").read_text()
    for word in ("Architecture", "Photographs", "Training", "Denoising error", "Limits"):
        assert word in card
