"""diffusers folders of every age and scheduler, checked against diffusers' own classes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import tiny_unet
from deqir.errors import OptionError, UnsupportedCheckpointError
from deqir.priors import load_prior
from deqir.schedule import NoiseSchedule

X, T = torch.randn(2, 3, 8, 8), torch.tensor([10, 900])


@pytest.fixture
def folder(tmp_path):
    tiny_unet(seed=3).save_pretrained(tmp_path / "prior")
    return tmp_path / "prior"


def schedule_of(folder, **config):
    (folder / "scheduler_config.json").write_text(json.dumps(config))
    return load_prior(folder).schedule.alphas_cumprod


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
@pytest.mark.parametrize("length", [50, 1000])
def test_beta_schedules_are_diffusers(folder, kind, length):
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(length, beta_schedule=kind, beta_start=2e-4, beta_end=0.03)
    ours = schedule_of(folder, **theirs.config)
    torch.testing.assert_close(ours.log(), theirs.alphas_cumprod.double().log(), rtol=1e-4, atol=1e-4)


def test_trained_betas(folder):
    ours = schedule_of(folder, trained_betas=[0.1, 0.2, 0.5])
    torch.testing.assert_close(ours, torch.tensor([0.9, 0.72, 0.36], dtype=torch.float64))


def test_betas_without_signal_at_the_end_are_diffusers_until_there(folder):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(100, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    ours = schedule_of(folder, **theirs.config)
    torch.testing.assert_close(ours[:-1], theirs.alphas_cumprod[:-1].double(), rtol=1e-3, atol=1e-6)
    assert 0 < ours[-1] < 1e-6
    with pytest.raises(UnsupportedCheckpointError, match="leave no signal"):
        schedule_of(folder, **(dict(theirs.config) | {"prediction_type": "epsilon"}))


def test_noise_levels_that_are_no_ddpm_schedule_are_refused(folder):
    with pytest.raises(UnsupportedCheckpointError, match="CMStochasticIterativeScheduler, whose noise levels"):
        schedule_of(folder, _class_name="CMStochasticIterativeScheduler", sigma_max=80.0)


def test_attention_names_of_old_diffusers(folder):
    """google/ddpm-* on the hub still have them."""
    schedule_of(folder, beta_schedule="linear")
    expected = load_prior(folder)(X, T)
    file = folder / "diffusion_pytorch_model.safetensors"
    old = {}
    for key, value in load_file(file).items():
        for new, name in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            key = key.replace(f".{new}.", f".{name}.")
        old[key] = value
    assert old.keys() != load_file(file).keys()
    save_file(old, file)
    torch.testing.assert_close(load_prior(folder)(X, T), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out_channels": 5}, "takes 3 channels and returns 5"),
        ({"class_embed_type": "timestep"}, "conditional on a timestep"),
        ({"block_out_channels": [7]}, "describes no UNet2DModel"),
        ({"block_out_channels": [-8, 16]}, "describes no UNet2DModel"),
        ({"block_out_channels": [80_000, 160_000]}, r"it has \d+ parameters; raise max_parameters above 4000000000"),
        ({"block_out_channels": [8 * 10**17, 8]}, "describes no UNet2DModel"),
        ({"layers_per_block": 100_000}, "it has 200000 residual blocks on the way down, more than 500"),
    ],
)
def test_networks_that_are_no_priors(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UnsupportedCheckpointError, match=message):
        schedule_of(folder, beta_schedule="linear")


def test_the_size_of_a_network_is_limited(folder):
    schedule_of(folder, beta_schedule="linear")
    size = sum(weight.numel() for weight in load_prior(folder).model.parameters())
    assert load_prior(folder, max_parameters=size).channels == 3
    with pytest.raises(UnsupportedCheckpointError, match=f"it has {size} parameters; raise max_parameters above"):
        load_prior(folder, max_parameters=size - 1)
    with pytest.raises(OptionError, match="max_parameters is 0; choose a whole number of at least 1"):
        load_prior(folder, max_parameters=0)


def test_the_weights_of_a_folder_stand_for_it(folder):
    schedule_of(folder, beta_schedule="linear")
    prior = load_prior(folder / "diffusion_pytorch_model.safetensors")
    assert prior.name == "prior"
    torch.testing.assert_close(prior(X, T), load_prior(folder)(X, T))


def test_a_latent_pipeline_is_refused(folder):
    index = {"_class_name": "LDMPipeline", "unet": ["diffusers", "UNet2DModel"], "vqvae": ["diffusers", "VQModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedCheckpointError, match="a pipeline with vqvae"):
        schedule_of(folder, beta_schedule="linear")


def test_options_replace_what_the_folder_says(folder):
    schedule_of(folder, beta_schedule="linear")
    prior = load_prior(folder, schedule="cosine", diffusion_steps=40, prediction="sample", image_size=16)
    torch.testing.assert_close(prior.schedule.alphas_cumprod, NoiseSchedule.cosine(40).alphas_cumprod)
    assert (prior.prediction, prior.image_size) == ("sample", 16)
    with pytest.raises(OptionError, match="num_heads does not apply to the diffusers folder"):
        load_prior(folder, num_heads=2)


@pytest.fixture
def score_folder(tmp_path):
    """A continuous score model as google/ncsnpp-* are: Fourier embedding, skip blocks, exploding variance."""
    from diffusers import DiffusionPipeline, ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel

    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=8,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"),
        time_embedding_type="fourier",
        attention_head_dim=None,
        mid_block_scale_factor=2**0.5,
    )
    pipeline: DiffusionPipeline = ScoreSdeVePipeline(model, ScoreSdeVeScheduler(200, sigma_max=50.0))
    pipeline.save_pretrained(tmp_path / "score")
    return tmp_path / "score", model.eval()


def test_a_score_model_predicts_noise(score_folder):
    folder, model = score_folder
    prior = load_prior(folder)
    a = prior.schedule.alphas_cumprod
    sigmas = ((1 - a) / a).sqrt() / 2
    assert (len(prior.schedule), float(sigmas[0]), float(sigmas[-1])) == (200, pytest.approx(0.01), pytest.approx(50))
    noise, image = torch.randn(2, 2, 3, 8, 8)
    t = torch.tensor([60, 120])
    root = a[t].sqrt().float().view(-1, 1, 1, 1)
    noisy = root * image + (1 - a[t]).sqrt().float().view(-1, 1, 1, 1) * noise
    sigma = sigmas[t].float()
    shown = (image + 1) / 2 + sigma.view(-1, 1, 1, 1) * noise
    with torch.no_grad():
        score = model(shown, sigma).sample
        torch.testing.assert_close(prior(noisy, t), -sigma.view(-1, 1, 1, 1) * score, rtol=1e-4, atol=1e-4)


def test_a_score_model_under_another_scheduler_is_refused(score_folder):
    folder, _ = score_folder
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "KarrasVeScheduler"}))
    with pytest.raises(UnsupportedCheckpointError, match="its scheduler is KarrasVeScheduler"):
        load_prior(folder)
