"""Everything that computes on a device works on one without float64: Apple's, in a stand-in."""

from dataclasses import replace

import pytest
import torch

import deqir
from conftest import all_operators, tiny_unet
from deqir.errors import DeviceError
from deqir.inversion import invert
from deqir.operators import Unobserved
from deqir.priors import DiffusersDenoiser
from deqir.restoration import Restorer
from metal import Marked, metal

PHOTOS = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
OPERATORS = all_operators()
SR = OPERATORS["sr"]


@pytest.fixture(scope="module")
def prior():
    """A tiny network in float32."""
    model = tiny_unet().requires_grad_(False)
    return DiffusersDenoiser(model, deqir.NoiseSchedule.linear(), "v_prediction", "tiny")


def test_the_stand_in_refuses_what_the_device_refuses():
    with metal():
        x = torch.ones(2, device="mps")
        assert x.device.type == "mps" and (x + 1).device.type == "mps" and x.cpu().device.type == "cpu"
        assert isinstance(torch.stack([x, x]), Marked) and not isinstance(torch.ones(2), Marked)
        for refused in (
            lambda: x.double(),
            lambda: torch.zeros(2, dtype=torch.float64, device="mps"),
            lambda: torch.ones(2, dtype=torch.float64).to(x.device),
            lambda: x.sum(0, dtype=torch.float64),
            lambda: x.numpy(),
        ):
            with pytest.raises(TypeError):
                refused()
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(2)


def restored(device, prior, operator, photos=PHOTOS, **settings):
    """Two restorations on ``device``, from observations that are made on the CPU."""
    options = {"steps": 6, "eta": 0.85, "solver": "serial", "tolerance": 0.0} | settings
    restorer = Restorer(prior, operator, device=device, **options)
    return restorer.restore(operator.forward(photos), seed=3)


def assert_same_on_metal(prior, operator, **settings):
    wanted = restored("cpu", prior, operator, **settings)
    with metal():
        found = restored("mps", prior, operator, **settings)
        assert found.image.device.type == "mps"
        image = found.image.cpu()
    assert found.status == wanted.status
    torch.testing.assert_close(image, wanted.image, rtol=0, atol=2e-5)


@pytest.mark.parametrize("solver", ["picard", "anderson", "triangular", "preconditioned"])
@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_parallel_solves_are_those_of_the_cpu(prior, solver, eta):
    assert_same_on_metal(prior, SR, solver=solver, eta=eta)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_restores(prior, name):
    assert_same_on_metal(prior, OPERATORS[name])


@pytest.mark.parametrize("rule", ["ddnm+", "ddrm", "diffpir"])
def test_every_rule_for_noise_restores(prior, rule):
    assert_same_on_metal(prior, OPERATORS["deblur"], rule=rule, noise=0.05)
    assert_same_on_metal(prior, SR, rule=rule, noise=0.05, solver="preconditioned", travel_length=2, travel_repeat=2)


def test_tiles_are_blended(prior):
    assert_same_on_metal(prior, SR, photos=PHOTOS.repeat(1, 1, 1, 2), tile=8, tile_overlap=2)


def test_gradients_are_those_of_the_cpu(prior):
    def gradient(device):
        y = SR.forward(PHOTOS).to(device).requires_grad_()
        restorer = Restorer(prior, SR, steps=4, eta=0.0, solver="preconditioned", tolerance=0.0, device=device)
        image = restorer.restore(y, seed=3, adjoint=deqir.ImplicitAdjoint()).image
        return torch.autograd.grad(image.square().sum(), y)[0].cpu()

    wanted = gradient("cpu")
    with metal():
        found = gradient("mps")
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert wanted.abs().max() > 0.1


def test_photos_are_inverted(prior):
    sampler = Restorer(prior, Unobserved(), steps=6, eta=0.0, solver="serial")
    wanted = invert(sampler, PHOTOS)
    with metal():
        found = invert(replace(sampler, device="mps"), PHOTOS)
        noise = found.noise.cpu()
    torch.testing.assert_close(noise, wanted.noise, rtol=1e-3, atol=1e-3)


def test_auto_measures_the_device_and_its_memory(prior, monkeypatch):
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 2**30)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2**30 - 1)
    with metal():
        chosen = restored("mps", prior, SR, solver="auto")
    assert chosen.stats.solver == "serial"
    assert "GB are free" in chosen.stats.reason


def test_float64_is_refused_in_one_sentence(prior):
    with metal(), pytest.raises(DeviceError, match="mps has no float64; choose dtype float32, or device cpu"):
        restored("mps", prior, SR, dtype="float64")
