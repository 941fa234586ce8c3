"""The prior as a deepinv denoiser, and deqir as a deepinv reconstructor."""

import runpy
import sys
import warnings
from pathlib import Path

import pytest
import torch

import deqir
from conftest import SHAPE, SmoothDenoiser
from deqir.errors import MissingExtraError, OptionError
from deqir.operators import Denoising, Inpainting, SuperResolution
from deqir.restoration import Restorer

WHY = 'deepinv is not installed; run pip install "deqir[deepinv]"'


def test_without_deepinv_one_sentence_says_so(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("deqir.integrations")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with pytest.raises(MissingExtraError, match=r'deepinv is not installed, .*; run pip install "deqir\[deepinv\]"$'):
        import deqir.integrations.deepinv  # noqa: F401


@pytest.fixture(scope="module")
def dinv():
    deepinv = pytest.importorskip("deepinv", reason=WHY)
    import deqir.integrations.deepinv  # noqa: F401

    return deepinv


def images(count=2, shape=SHAPE, seed=0):
    return torch.rand(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reconstructor(**options):
    from deqir.integrations.deepinv import DeqIR

    settings = {"steps": 6, "solver": "serial", "dtype": "float64"} | options
    return DeqIR(SmoothDenoiser(), **settings)


def prior_denoiser(**options):
    from deqir.integrations.deepinv import PriorDenoiser

    return PriorDenoiser(SmoothDenoiser(**options))


@pytest.mark.parametrize("solver", ["serial", "picard"])
def test_the_reconstructor_is_the_restorer(dinv, solver):
    truth, mask = images(), torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    physics = dinv.physics.Inpainting(SHAPE, mask=mask.expand(1, 3, 8, 8).double())
    model = reconstructor(solver=solver, seed=5)
    y = physics(truth)
    image = model(y, physics)
    expected = Restorer(SmoothDenoiser(), Inpainting(mask), steps=6, solver=solver, dtype="float64").restore(y, seed=5)
    torch.testing.assert_close(image, expected.image, rtol=1e-9, atol=1e-9)
    assert model.restoration.stats.nfe == expected.stats.nfe
    assert isinstance(model, dinv.models.Reconstructor)


def test_gaussian_noise_is_read_from_the_physics(dinv):
    truth = images()
    physics = dinv.physics.Denoising(dinv.physics.GaussianNoise(0.25)).double()
    y = physics(truth)
    image = reconstructor()(y, physics)
    expected = Restorer(SmoothDenoiser(), Denoising(), steps=6, solver="serial", noise=0.25, dtype="float64").restore(y)
    torch.testing.assert_close(image, expected.image, rtol=1e-9, atol=1e-9)
    noiseless = reconstructor(noise=0.0)(y, physics)
    torch.testing.assert_close(noiseless, y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (lambda p: p.PoissonNoise(), "PoissonNoise is not Gaussian; state the nearest noise="),
        (lambda p: p.GaussianNoise(torch.tensor([0.1, 0.3])), "go from 0.1 to 0.3; give images of one level"),
    ],
)
def test_other_noise_must_be_stated(dinv, noise, message):
    physics = dinv.physics.Denoising(noise(dinv.physics))
    with pytest.raises(OptionError, match=message):
        reconstructor()(images(), physics)
    assert reconstructor(noise=0.1)(images(), physics).shape == (2, *SHAPE)


def test_equal_levels_of_a_batch_are_one_level(dinv):
    physics = dinv.physics.Denoising(dinv.physics.GaussianNoise(torch.tensor([0.1, 0.1])))
    assert reconstructor()(images(), physics).isfinite().all()


def test_a_value_range_is_an_affine_change_of_units(dinv):
    """Images of [-1, 1] seen by an operator that does not keep constants."""
    operator = dinv.physics.LinearPhysics(A=lambda x, **_: 3 * x[..., ::2], img_size=SHAPE).double()
    unit = images()
    plain = reconstructor()(operator.A(unit), operator)
    shifted = reconstructor(value_range=(-1.0, 1.0))(operator.A(2 * unit - 1), operator)
    torch.testing.assert_close(shifted, 2 * plain - 1, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(operator.A(shifted), operator.A(2 * unit - 1), rtol=1e-5, atol=1e-5)
    with pytest.raises(OptionError, match="black below white"):
        reconstructor(value_range=(1.0, 1.0))


def test_two_channels_of_complex_images_are_restored(dinv):
    from deqir.integrations.deepinv import DeqIR

    mask = (torch.rand(8, 8, generator=torch.Generator().manual_seed(2)) > 0.4).double()
    physics = dinv.physics.MRI(mask=mask).double()
    truth = 2 * images(shape=(2, 8, 8)) - 1
    y = physics.A(truth)
    model = DeqIR(SmoothDenoiser(channels=2), value_range=(-1.0, 1.0), steps=5, solver="picard", dtype="float64")
    torch.testing.assert_close(physics.A(model(y, physics)), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["tomography", "single-pixel", "pansharpening"])
def test_grey_images_stacked_and_iterative_observations_are_restored(dinv, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        physics, shape = {
            "tomography": lambda: (dinv.physics.Tomography(6, 8, normalize=True, circle=True), (1, 8, 8)),
            "single-pixel": lambda: (dinv.physics.SinglePixelCamera(m=20, img_size=(1, 8, 8), fast=True), (1, 8, 8)),
            "pansharpening": lambda: (dinv.physics.Pansharpen(SHAPE, factor=2), SHAPE),
        }[name]()
    truth = images(shape=shape).float()
    y = physics.A(truth)
    image = reconstructor(dtype="float32")(y, physics)
    assert image.shape == truth.shape
    for seen, wanted in zip(physics.A(image), y, strict=True):
        assert (seen - wanted).norm() < 1e-4 * wanted.norm()


def test_deepinv_tests_it(dinv):
    from deqir.integrations.deepinv import as_physics

    physics = as_physics(SuperResolution(2), SHAPE)
    truth = images(4).float()
    pairs = torch.utils.data.TensorDataset(truth, physics(truth))
    loader = torch.utils.data.DataLoader(pairs, batch_size=2)
    model = reconstructor(dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figures = dinv.test(model, loader, physics, metrics=dinv.metric.PSNR(), device="cpu", verbose=False)
    expected = deqir.psnr(torch.cat([model(y, physics) for y in physics(truth).split(2)]), truth).mean()
    assert figures["PSNR"] == pytest.approx(float(expected), abs=1e-3)


def test_the_denoiser_inverts_the_noise_that_the_prior_predicts(dinv):
    """At a noise level of the schedule, the estimate is (x_t - sqrt(1 - a) eps) / sqrt(a), in [0, 1]."""
    model = prior_denoiser()
    prior = model.prior
    for t in (0, 300, 900):
        a = prior.schedule.alphas_cumprod[t]
        sigma = ((1 - a) / a).sqrt() / 2
        x = images() + sigma * images(seed=1)
        state = a.sqrt() * (2 * x - 1)
        eps = prior(state, torch.full((2,), t))
        clean = (state - (1 - a).sqrt() * eps) / a.sqrt()
        torch.testing.assert_close(model(x, float(sigma)), (clean + 1) / 2, rtol=1e-9, atol=1e-9)
        assert model.timestep(torch.tensor([2 * float(sigma)])).tolist() == [t]


def test_noise_levels_may_differ_in_a_batch_and_zero_keeps_the_image(dinv):
    model, x = prior_denoiser(), images(3)
    both = model(x, torch.tensor([0.0, 0.1, 0.5]))
    assert torch.equal(both[0], x[0])
    torch.testing.assert_close(both[1:2], model(x[1:2], 0.1))
    torch.testing.assert_close(both[2:3], model(x[2:3], 0.5))
    assert model(x, 1e4).isfinite().all()


def test_a_grey_image_is_denoised_as_three_equal_channels(dinv):
    model, x = prior_denoiser(), images(2, (1, 8, 8))
    torch.testing.assert_close(model(x, 0.2), model(x.expand(-1, 3, -1, -1), 0.2).mean(1, keepdim=True))


def test_the_denoiser_is_differentiable(dinv):
    model, x = prior_denoiser(), images(1, (3, 3, 3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: model(x, 0.2), (x,))


@pytest.mark.parametrize("name", ["DDRM", "DiffPIR", "DPS"])
def test_deepinv_s_samplers_run_with_the_prior(dinv, name):
    """They restore better than the observation does, on images that the stand-in prior is made for."""
    import numpy as np

    torch.manual_seed(0)
    truth = (0.5 + 0.2 * torch.randn(1, 3, 16, 16)).clamp(0, 1)
    mask = (torch.rand(1, 3, 16, 16) > 0.3).float()
    physics = dinv.physics.Inpainting((3, 16, 16), mask=mask, noise_model=dinv.physics.GaussianNoise(0.02))
    y, model = physics(truth), prior_denoiser(variance=0.16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = {
            "DDRM": lambda: dinv.sampling.DDRM(model, sigmas=np.linspace(1, 0, 20)),
            "DiffPIR": lambda: dinv.sampling.DiffPIR(model, dinv.optim.L2(), max_iter=20),
            "DPS": lambda: dinv.sampling.DPS(model, num_steps=20, guidance="annealed"),
        }[name]()
        image = sampler(y, physics).detach().float()
    assert image.shape == truth.shape
    assert ((image - truth) * mask).square().mean() < 0.02
    assert (image - truth).square().mean() < (y - truth).square().mean()


def test_the_side_by_side_example_prints_its_table(dinv, capsys):
    example = Path(__file__).parents[2] / "examples" / "deepinv_side_by_side.py"
    runpy.run_path(str(example))["main"](steps=3, side=16)
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0].split()[0] for row in rows] == ["DDRM", "DiffPIR", "DPS", "DeqIR,", "DeqIR,"]
    assert all(5 < float(row[1]) < 60 and 0 < float(row[2]) <= 1 for row in rows)
    evaluations, sequential = ([int(row[column]) for row in rows] for column in (3, 4))
    assert evaluations[:4] == sequential[:4] == [4, 3, 3, 3]
    assert evaluations[4] >= sequential[4]
