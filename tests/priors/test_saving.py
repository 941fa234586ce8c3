"""Priors written as diffusers folders."""

import json

import pytest
import torch
from formats import DDPM, Guided, ddpm, guided, random_state

from deqir.errors import OptionError, OutputError
from deqir.priors import load_prior, save_prior, with_label
from deqir.schedule import NoiseSchedule

X, T = torch.randn(2, 3, 8, 8), torch.tensor([10, 40])

CHECKPOINTS = {
    "ddpm": (ddpm, DDPM(), {}),
    "a narrower first convolution": (ddpm, DDPM(multipliers=(2, 3)), {}),
    "heads that differ by level": (guided, Guided(heads=4, attention=(True, True), learn_sigma=True), {"num_heads": 4}),
    "half as wide at the top": (guided, Guided(64, (0.5, 1), head_channels=16), {"num_head_channels": 16}),
    "rescaled": (
        guided,
        Guided(heads=1, timestep_scale=0.25),
        {"num_heads": 1, "diffusion_steps": 4000, "rescale_timesteps": True},
    ),
}


@pytest.fixture
def prior(tmp_path):
    torch.save(dict(random_state(ddpm, DDPM())), tmp_path / "model.pt")
    return load_prior(tmp_path / "model.pt")


@pytest.mark.parametrize("name", CHECKPOINTS)
@torch.no_grad()
def test_what_is_saved_loads_to_the_same_network_and_schedule(tmp_path, name):
    network, config, options = CHECKPOINTS[name]
    torch.save(dict(random_state(network, config)), tmp_path / "model.pt")
    before = load_prior(tmp_path / "model.pt", **options)
    after = load_prior(save_prior(before, tmp_path / "folder"))
    torch.testing.assert_close(after(X, T), before(X, T), rtol=0, atol=0)
    torch.testing.assert_close(after.schedule.alphas_cumprod, before.schedule.alphas_cumprod, rtol=1e-12, atol=0)
    assert (tmp_path / "folder" / "unet" / "diffusion_pytorch_model.safetensors").exists()


@torch.no_grad()
def test_diffusers_itself_reads_it(tmp_path, prior):
    from diffusers import DDPMPipeline

    pipeline = DDPMPipeline.from_pretrained(save_prior(prior, tmp_path / "folder"))
    torch.testing.assert_close(pipeline.unet(X, T).sample, prior(X, T), rtol=0, atol=1e-5)
    theirs = pipeline.scheduler.alphas_cumprod.double()
    torch.testing.assert_close(theirs, prior.schedule.alphas_cumprod, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("schedule", [NoiseSchedule.cosine(30), NoiseSchedule.linear(30, 0.01, 0.2)])
@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_schedule_and_prediction_are_kept(tmp_path, schedule, prediction):
    torch.save(dict(random_state(ddpm, DDPM())), tmp_path / "model.pt")
    prior = load_prior(tmp_path / "model.pt", schedule=schedule, prediction=prediction)
    after = load_prior(save_prior(prior, tmp_path / "folder"))
    torch.testing.assert_close(after.schedule.alphas_cumprod, schedule.alphas_cumprod, rtol=1e-12, atol=0)
    assert after.prediction == prediction


@torch.no_grad()
def test_the_null_class_is_kept(tmp_path):
    torch.save(dict(random_state(guided, Guided(heads=1, classes=3), label=0)), tmp_path / "model.pt")
    prior = load_prior(tmp_path / "model.pt", num_heads=1, null_label=2)
    after = load_prior(save_prior(prior, tmp_path / "folder"), label=0, guidance=3.0)
    torch.testing.assert_close(after(X, T), with_label(prior, 0, 3.0)(X, T))


def test_an_existing_folder_is_kept_unless_told(tmp_path, prior):
    folder = save_prior(prior, tmp_path / "folder")
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="exists; choose another folder or add --overwrite"):
        save_prior(prior, folder)
    assert (folder / "mine.txt").exists()
    save_prior(prior, folder, overwrite=True)
    assert not (folder / "mine.txt").exists()
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "DDPMPipeline"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "model.pt"]


def test_other_things_are_never_replaced(tmp_path, prior):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("")
    for target, message in (("photos", "something else than a saved prior"), ("model.pt", "is no folder")):
        with pytest.raises(OutputError, match=message):
            save_prior(prior, tmp_path / target, overwrite=True)
    with pytest.raises(OutputError, match="cannot be written"):
        save_prior(prior, tmp_path / "model.pt" / "folder")
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_a_failure_leaves_nothing_behind(tmp_path, prior, monkeypatch):
    from diffusers import DDPMPipeline

    def fail(self, folder, **options):
        folder.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DDPMPipeline, "save_pretrained", fail)
    with pytest.raises(OutputError, match="No space left"):
        save_prior(prior, tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_callable_has_no_folder(tmp_path):
    with pytest.raises(OptionError, match="is no UNet2DModel"):
        save_prior(load_prior(lambda x, t: x), tmp_path / "folder")
