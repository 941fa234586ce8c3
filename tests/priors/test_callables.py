"""Modules and plain callables as priors."""

from types import SimpleNamespace

import pytest
import torch

from conftest import tiny_unet
from deqir.errors import OptionError, ShapeError
from deqir.priors import Denoiser, DiffusersDenoiser, load_prior
from deqir.schedule import NoiseSchedule

X, T = torch.randn(2, 3, 5, 7), torch.tensor([10, 30])


class Network(torch.nn.Module):
    """Returns noise and variance, in the dtype of its weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x, t):
        assert x.dtype == self.weight.dtype
        return torch.cat([x * self.weight * t.view(-1, 1, 1, 1), x], 1)


def test_a_module_is_a_prior_and_its_variance_is_left_out():
    prior = load_prior(Network(), schedule=NoiseSchedule.linear(50))
    assert isinstance(prior, Denoiser)
    assert (prior.channels, prior.name, len(prior.schedule)) == (3, "Network", 50)
    torch.testing.assert_close(prior(X, T), X * T.view(-1, 1, 1, 1))
    double = prior.to(torch.device("cpu"), torch.float64)
    assert double.function.weight.dtype == torch.float64
    assert double(X, T).dtype == torch.float32


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_function_of_any_prediction_gives_the_noise(prediction):
    clean, noise = torch.randn(2, 1, 2, 4, 4, dtype=torch.float64).unbind()
    a = NoiseSchedule.cosine(50).alphas_cumprod[T[:1]].view(-1, 1, 1, 1)
    said = {"epsilon": noise, "sample": clean, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean}[prediction]
    prior = load_prior(
        lambda x, t: SimpleNamespace(sample=said),
        schedule="cosine",
        diffusion_steps=50,
        channels=2,
        prediction=prediction,
    )
    torch.testing.assert_close(prior(a.sqrt() * clean + (1 - a).sqrt() * noise, T[:1]), noise)


def test_a_unet_keeps_its_own_padding_and_channels():
    prior = load_prior(tiny_unet(channels=1), prediction="v_prediction")
    assert isinstance(prior, DiffusersDenoiser)
    assert (prior.channels, prior.prediction) == (1, "v_prediction")
    with torch.no_grad():
        assert prior(X[:, :1], T).shape == (2, 1, 5, 7)


def test_a_denoiser_is_returned(network):
    assert load_prior(network) is network
    with pytest.raises(OptionError, match="prediction does not apply to the denoiser tiny"):
        load_prior(network, prediction="sample")


def test_what_is_no_prior():
    with pytest.raises(OptionError, match="cannot be a int"):
        load_prior(3)
    with pytest.raises(ShapeError, match=r"returned \(2, 3, 4, 4\) for \(2, 3, 5, 7\)"):
        load_prior(lambda x, t: torch.zeros(2, 3, 4, 4))(X, T)
    with pytest.raises(ShapeError, match="returned NoneType"):
        load_prior(lambda x, t: None)(X, T)
    with pytest.raises(ShapeError, match=r"takes \(N, 3, H, W\)"):
        load_prior(lambda x, t: x)(X[:, :2], T)
