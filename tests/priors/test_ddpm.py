"""DDPM checkpoints of pytorch_diffusion, DDIM and SDEdit against their format's own operations."""

import pytest
import torch
from formats import DDPM, ddpm, random_state

from deqir.errors import OptionError, UnsupportedCheckpointError
from deqir.priors import load_prior
from deqir.schedule import NoiseSchedule

CONFIGS = {
    "plain": DDPM(),
    "attention everywhere, two blocks": DDPM(attention=(True, True), blocks=2),
    "three levels as CIFAR-10": DDPM(multipliers=(1, 2, 2), attention=(False, True, False), blocks=2),
    "pooling": DDPM(convolved=False, multipliers=(1, 1, 3), attention=(False, False, True)),
    "one level": DDPM(multipliers=(1,), attention=(False,)),
    "a narrower first convolution": DDPM(multipliers=(2, 1, 3), attention=(True, False, False), blocks=2),
    "one channel": DDPM(channels=1, blocks=3),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_converted_network_is_the_original(tmp_path, name):
    config = CONFIGS[name]
    state = random_state(ddpm, config)
    torch.save(dict(state), tmp_path / "model.ckpt")
    x, t = torch.randn(2, config.channels, 16, 8), torch.tensor([3, 850])
    prior = load_prior(tmp_path / "model.ckpt")
    with torch.no_grad():
        expected = ddpm(state, config, x, t)
        torch.testing.assert_close(prior(x, t), expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.1
    assert (prior.name, len(prior.schedule)) == ("model", 1000)


@torch.no_grad()
def test_the_norms_epsilon(tmp_path):
    """Features of a thousandth: their variance is that of the epsilon."""
    state = random_state(ddpm, DDPM())
    state["conv_in.weight"] *= 1e-3
    state["conv_in.bias"] *= 1e-3
    torch.save(dict(state), tmp_path / "model.pt")
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([40])
    torch.testing.assert_close(load_prior(tmp_path / "model.pt")(x, t), ddpm(state, DDPM(), x, t), rtol=0, atol=1e-5)


def test_the_list_that_ddims_training_saves(tmp_path):
    """[model, optimiser, epoch, step, averaged]: the averaged weights are meant, the others are there."""
    averaged, last = random_state(ddpm, DDPM(), seed=1), random_state(ddpm, DDPM(), seed=2)
    optimiser = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
    wrapped = {f"module.{key}": value for key, value in last.items()}
    torch.save([wrapped, optimiser, 4, 1000, dict(averaged)], tmp_path / "ckpt.pth")
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([500])
    with torch.no_grad():
        for ema, state in ((True, averaged), (False, last)):
            answer = load_prior(tmp_path / "ckpt.pth", ema=ema)(x, t)
            torch.testing.assert_close(answer, ddpm(state, DDPM(), x, t), rtol=0, atol=1e-5)


def test_options(tmp_path):
    torch.save(dict(random_state(ddpm, DDPM())), tmp_path / "model.pt")
    schedule = NoiseSchedule.cosine(50)
    prior = load_prior(tmp_path / "model.pt", schedule=schedule, prediction="v_prediction", image_size=48)
    assert (prior.schedule, prior.prediction, prior.image_size) == (schedule, "v_prediction", 48)
    with pytest.raises(OptionError, match="num_heads does not apply to the DDPM checkpoint"):
        load_prior(tmp_path / "model.pt", num_heads=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mid.attn_1.norm.weight": None}, "missing: mid.attn_1.norm.weight"),
        ({"down.0.block.0.extra.weight": torch.zeros(2)}, "unexpected: down.0.block.0.extra.weight"),
        ({"conv_out.weight": torch.zeros(4, 32, 3, 3)}, "takes 3 channels and returns 4"),
        ({"conv_in.bias": torch.zeros(16)}, "of another shape: conv_in.bias"),
        ({"conv_in.weight": None}, "'conv_in.weight' is missing"),
    ],
)
def test_damage_is_named(tmp_path, change, message):
    state = dict(random_state(ddpm, DDPM())) | change
    torch.save({key: value for key, value in state.items() if value is not None}, tmp_path / "model.pt")
    with pytest.raises(UnsupportedCheckpointError, match=message):
        load_prior(tmp_path / "model.pt")
