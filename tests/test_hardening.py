"""What is degenerate, overflows or breaks: the right answer all the same, or the image and the timestep by name."""

from dataclasses import dataclass

import pytest
import torch

from conftest import SmoothDenoiser, tiny_unet
from deqir import operators
from deqir.adjoints import ImplicitAdjoint, PhantomGradient, UnrolledAdjoint
from deqir.errors import NondeterminismError, NonFiniteError, OptionError
from deqir.priors import DiffusersDenoiser, load_prior
from deqir.priors.denoiser import in_precision
from deqir.restoration import Restorer
from deqir.schedule import NoiseSchedule
from deqir.solvers import Anderson, Status, TriangularAnderson
from deqir.solvers.history import mixing_weights

SOLVERS = ("serial", "picard", "anderson", "triangular", "preconditioned")
FAILS_AT = 300


@dataclass
class Breaking(SmoothDenoiser):
    """Gives ``value`` at timesteps below ``below`` for images that have turned out bright."""

    value: float = torch.nan
    below: int = FAILS_AT

    def __call__(self, x, timesteps):
        bright = (x.mean((1, 2, 3)) > 0.3) & (timesteps < self.below)
        return torch.where(bright.view(-1, 1, 1, 1), self.value, super().__call__(x, timesteps))


@dataclass
class Dropping(SmoothDenoiser):
    """A network whose dropout was left on."""

    def __call__(self, x, timesteps):
        return torch.nn.functional.dropout(super().__call__(x, timesteps), 0.1)


def dark_bright_dark():
    return torch.tensor([0.1, 0.95, 0.2], dtype=torch.float64).view(3, 1, 1, 1).expand(3, 3, 8, 8)


def restorer(denoiser, operator=None, **options):
    settings = {"steps": 8, "spacing": "linspace", "dtype": "float64", "tolerance": 0.0, **options}
    return Restorer(denoiser, operator or operators.SuperResolution(2), **settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("solver", SOLVERS)
def test_one_image_fails_alone_and_its_timestep_is_named(solver, value):
    y = operators.SuperResolution(2).forward(dark_bright_dark())
    broken = restorer(Breaking(value=value), solver=solver).restore(y)
    sound = restorer(SmoothDenoiser(), solver=solver).restore(y)
    assert broken.status == (Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED)
    assert broken.failed_at == (None, 285, None)  # of 999, 856, .. 428, 285, 143, 0
    assert broken.image[1].isnan().all()
    torch.testing.assert_close(broken.image[[0, 2]], sound.image[[0, 2]], rtol=1e-10, atol=1e-10)
    assert sound.failed_at == (None,) * 3


@pytest.mark.parametrize("adjoint", [ImplicitAdjoint(tolerance=0), ImplicitAdjoint(preconditioner=None, tolerance=0),
                                     PhantomGradient(2)], ids=repr)  # fmt: skip
@pytest.mark.parametrize("solver", ["serial", "preconditioned"])
def test_a_failing_image_leaves_the_gradients_of_the_others_alone(adjoint, solver):
    gradients = []
    for denoiser in (Breaking(), SmoothDenoiser()):
        y = operators.SuperResolution(2).forward(dark_bright_dark()).requires_grad_()
        image = restorer(denoiser, solver=solver).restore(y, adjoint=adjoint).image
        weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=image.dtype)
        (weights * image)[[0, 2]].sum().backward()
        gradients.append(y.grad)
    assert gradients[1][[0, 2]].abs().min() > 0
    torch.testing.assert_close(gradients[0][[0, 2]], gradients[1][[0, 2]], rtol=1e-9, atol=1e-9)
    assert (gradients[0][1] == 0).all()


@pytest.mark.parametrize("adjoint", [ImplicitAdjoint(tolerance=0), PhantomGradient(2)], ids=repr)
def test_an_image_lost_at_the_first_step_leaves_the_gradients_of_the_others_alone(adjoint):
    noise = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    noise[1] += 5
    gradients = []
    for denoiser in (Breaking(below=1000), SmoothDenoiser()):
        y = operators.SuperResolution(2).forward(dark_bright_dark()).requires_grad_()
        result = restorer(denoiser, solver="picard").restore(y, initial_noise=noise, adjoint=adjoint)
        result.image[[0, 2]].square().sum().backward()
        gradients.append(y.grad)
        assert result.failed_at[1] == (999 if isinstance(denoiser, Breaking) else None)
    torch.testing.assert_close(gradients[0][[0, 2]], gradients[1][[0, 2]], rtol=1e-9, atol=1e-9)
    assert (gradients[0][1] == 0).all()


def test_a_shared_kernel_gets_the_gradient_of_the_images_that_remain():
    gradients = []
    for denoiser in (Breaking(), SmoothDenoiser()):
        blur = operators.ParametricBlur(operators.gaussian_kernel(3, 1.0).requires_grad_())
        y = blur.forward(dark_bright_dark()).detach()
        image = restorer(denoiser, blur, solver="picard").restore(y, adjoint=ImplicitAdjoint(tolerance=0)).image
        gradients.append(torch.autograd.grad(image[[0, 2]].square().sum(), blur.kernel)[0])
    assert gradients[1].abs().max() > 0
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


def test_a_broken_gradient_names_image_and_timestep():
    y = operators.SuperResolution(2).forward(dark_bright_dark()).requires_grad_()
    image = restorer(SmoothDenoiser(), solver="picard").restore(y, adjoint=ImplicitAdjoint()).image
    with pytest.raises(NonFiniteError, match=r"image 2 is NaN or infinite from timestep 0 on"):
        (image * torch.tensor([1, 1, torch.nan]).view(3, 1, 1, 1)).sum().backward()


class KinkedAt(SmoothDenoiser):
    """Its derivative is NaN at one timestep for bright images, its values are not."""

    def __call__(self, x, timesteps):
        predicted = super().__call__(x, timesteps)
        kinked = (timesteps == 285) & (x.mean((1, 2, 3)) > 0.3)
        predicted[kinked] = predicted[kinked] + (0 * x[kinked]).sqrt()
        return predicted


ADJOINTS = (
    ImplicitAdjoint(),
    ImplicitAdjoint(preconditioner=None),
    PhantomGradient(2),
    UnrolledAdjoint(),
    UnrolledAdjoint(checkpointing=False),
)


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
def test_a_gradient_that_breaks_on_the_way_back_names_where(adjoint):
    y = operators.SuperResolution(2).forward(dark_bright_dark()).requires_grad_()
    image = restorer(KinkedAt(), solver="picard").restore(y, adjoint=adjoint).image
    with pytest.raises(NonFiniteError, match=r"NaN or infinite from timestep 285 on"):
        image.sum().backward()


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
def test_a_loss_that_is_nan_names_the_image(adjoint):
    y = operators.SuperResolution(2).forward(dark_bright_dark()).requires_grad_()
    image = restorer(SmoothDenoiser(), solver="picard").restore(y, adjoint=adjoint).image
    with pytest.raises(NonFiniteError, match="the gradient of image 2 is NaN or infinite"):
        (image * torch.tensor([1, 1, torch.nan]).view(3, 1, 1, 1)).sum().backward()


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
def test_a_gradient_that_breaks_where_the_loss_does_not_look_is_none(adjoint):
    y = operators.SuperResolution(2).forward(dark_bright_dark()).requires_grad_()
    image = restorer(KinkedAt(), solver="picard").restore(y, adjoint=adjoint).image
    image[[0, 2]].sum().backward()
    assert y.grad[[0, 2]].isfinite().all() and y.grad[[0, 2]].abs().min() > 0
    assert (y.grad[1] == 0).all()


@pytest.mark.parametrize("solver", ["picard", "anderson", "triangular", "preconditioned", Anderson()])
def test_a_network_with_dropout_is_refused_in_parallel(solver):
    y = torch.rand(2, 3, 4, 4)
    with pytest.raises(NondeterminismError, match=r"prior smooth answers differently .* choose solver serial"):
        restorer(Dropping(), solver=solver, dtype="float32").restore(y)
    assert restorer(Dropping(), solver="serial").restore(y.double()).image.isfinite().all()


def test_auto_walks_serially_where_the_network_is_random(monkeypatch):
    monkeypatch.setattr("deqir.choice._seconds", lambda chain, batch: 1 / batch)
    y = torch.rand(1, 3, 4, 4)
    options = {"solver": "auto", "dtype": "float32", "steps": 40}
    assert restorer(SmoothDenoiser(), **options).restore(y).stats.solver == "preconditioned"
    stats = restorer(Dropping(), **options).restore(y).stats
    assert (stats.solver, stats.reason) == ("serial", "the prior answers differently to the same input")


class Normalising(SmoothDenoiser):
    """Its answers are divided by a statistic of the whole batch, as batch normalisation in training mode does."""

    def __call__(self, x, timesteps):
        predicted = super().__call__(x, timesteps)
        return predicted / predicted.std().clamp(min=0.1)


class RandomAtTheEnd(SmoothDenoiser):
    """It is random at the last timesteps alone."""

    def __call__(self, x, timesteps):
        predicted = super().__call__(x, timesteps)
        return predicted + 0.2 * torch.randn_like(predicted) * (timesteps < 100).view(-1, 1, 1, 1)


@pytest.mark.parametrize("solver", ["picard", "anderson", "triangular", "preconditioned", Anderson()])
def test_a_network_that_mixes_the_images_of_a_batch_is_refused_in_parallel(solver):
    y = torch.rand(2, 3, 4, 4)
    with pytest.raises(NondeterminismError, match=r"prior smooth mixes the images of a batch.* choose solver serial"):
        restorer(Normalising(), solver=solver, dtype="float32").restore(y)
    assert restorer(Normalising(), solver="serial").restore(y.double()).image.isfinite().all()


def test_a_network_that_is_random_at_the_last_timestep_is_called_random():
    with pytest.raises(NondeterminismError, match="answers differently to the same input"):
        restorer(RandomAtTheEnd(), solver="picard", dtype="float32").restore(torch.rand(1, 3, 4, 4))


def test_one_image_a_call_cannot_be_mixed():
    y, options = torch.rand(1, 3, 4, 4).double(), {"max_batch": 1, "tolerance": 0.0, "steps": 8}
    serial, parallel = (restorer(Normalising(), solver=name, **options).restore(y) for name in ("serial", "picard"))
    torch.testing.assert_close(parallel.image, serial.image, rtol=1e-8, atol=1e-8)


def test_auto_walks_serially_where_the_images_of_a_batch_are_mixed(monkeypatch):
    monkeypatch.setattr("deqir.choice._seconds", lambda chain, batch: 1 / batch)
    stats = restorer(Normalising(), solver="auto", dtype="float32", steps=40).restore(torch.rand(1, 3, 4, 4)).stats
    assert stats.solver == "serial"
    assert stats.reason.startswith("the prior mixes the images of a batch")


def overflowing_unet():
    """A network whose first activations pass 65504, the largest of float16, before a norm brings them back."""
    model = tiny_unet()
    with torch.no_grad():
        model.conv_in.weight *= 1e6
        model.conv_in.bias *= 1e6
    return model.requires_grad_(False)


@pytest.mark.parametrize("as_callable", [False, True])
def test_a_call_that_overflows_in_float16_is_repeated_in_float32(as_callable):
    model = overflowing_unet()
    x, timesteps = torch.randn(3, 3, 9, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 500, 900])
    padded = torch.cat([x, x[:, :, -2:-1]], 2)
    with torch.autocast("cpu", torch.float16):
        assert not model(padded, timesteps).sample.isfinite().all()  # so the overflow is real
    prior = load_prior(lambda x, t: model(x, t)) if as_callable else DiffusersDenoiser(model, NoiseSchedule.linear())
    x = padded if as_callable else x
    half, full = (prior.to(torch.device("cpu"), dtype)(x, timesteps) for dtype in (torch.float16, torch.float32))
    assert half.isfinite().all()
    torch.testing.assert_close(half, full, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("adjoint", [ImplicitAdjoint(), PhantomGradient(2), UnrolledAdjoint()], ids=repr)
def test_gradients_through_what_overflows_are_those_of_float32(adjoint):
    prior, found = DiffusersDenoiser(overflowing_unet(), NoiseSchedule.linear()), []
    for dtype in ("float16", "float32"):
        y = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        options = {"steps": 3, "solver": "picard", "tolerance": 0.0, "dtype": dtype, "device": "cpu"}
        image = Restorer(prior, operators.SuperResolution(2), **options).restore(y, adjoint=adjoint).image
        (image * torch.linspace(-1, 1, image.numel()).view_as(image)).sum().backward()
        found.append(y.grad)
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_a_gradient_beside_an_image_that_overflows_is_that_of_half_precision():
    def network(x, timesteps):
        if torch.is_autocast_enabled("cpu"):
            squared = (x.half() * x.half()).float()
            return squared / (1 + squared)
        return x

    x = torch.ones(3, 1, 1, 1)
    x[1] = 300
    x.requires_grad_()
    in_precision(network, torch.float16, x, torch.zeros(3))[[0, 2]].sum().backward()
    assert x.grad.flatten().tolist() == [0.5, 0.0, 0.5]


def test_only_the_images_that_overflow_are_repeated():
    seen = []

    def network(x, timesteps):
        seen.append(len(x))
        if torch.is_autocast_enabled("cpu"):
            return torch.where(x.abs().amax((1, 2, 3), keepdim=True) > 4, torch.inf, x)
        return x

    x = torch.zeros(4, 3, 2, 2)
    x[2, 0, 0, 0] = 5
    prior = load_prior(network).to(torch.device("cpu"), torch.bfloat16)
    assert torch.equal(prior(x, torch.zeros(4, dtype=torch.long)), x)
    assert seen == [4, 1]


def test_identical_residuals_get_finite_weights_of_sum_one():
    for count in (1, 2, 5):
        gram = torch.ones(3, count, count, dtype=torch.float64)  # singular: all residuals are one
        gram[1] *= 1e-300
        gram[2] *= 1e300
        for ridge in (0.0, 1e-4):
            weights = mixing_weights(gram, torch.ones(3, count, dtype=torch.bool), ridge, 0)
            assert weights.isfinite().all()
            torch.testing.assert_close(weights.sum(-1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("solver", [Anderson(5, ridge=0.0), TriangularAnderson(5, ridge=0.0)], ids=repr)
def test_a_history_of_zero_residuals_does_no_harm(solver):
    operator = operators.SuperResolution(2)
    y = operator.forward(dark_bright_dark())
    serial = restorer(SmoothDenoiser(), solver="serial", keep_trajectory=True).restore(y)
    solved = restorer(SmoothDenoiser(), solver=solver).restore(y, start=serial.trajectory)
    torch.testing.assert_close(solved.image, serial.image, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_nothing_masked_gives_the_observation_back(solver):
    y = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    result = restorer(SmoothDenoiser(), operators.Inpainting(torch.ones(1, 1, 8, 8)), solver=solver).restore(y)
    torch.testing.assert_close(result.image, y, rtol=1e-10, atol=1e-10)


def test_a_mask_that_hides_everything_is_refused():
    with pytest.raises(OptionError, match="0 everywhere, nothing observed"):
        operators.Inpainting(torch.zeros(1, 1, 8, 8))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("solver", SOLVERS)
def test_constant_images_and_single_steps(solver, value):
    y = torch.full((1, 3, 4, 4), value, dtype=torch.float64)
    for steps in (1, 6):
        result = restorer(SmoothDenoiser(), solver=solver, steps=steps).restore(y)
        serial = restorer(SmoothDenoiser(), solver="serial", steps=steps).restore(y)
        assert result.status == (Status.CONVERGED,)
        torch.testing.assert_close(result.image, serial.image, rtol=1e-10, atol=1e-10)


def test_every_timestep_of_the_schedule():
    y = torch.rand(1, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    results = {
        solver: restorer(SmoothDenoiser(), solver=solver, steps=1000, eta=0.85, tolerance=0.5).restore(y)
        for solver in ("serial", "preconditioned")
    }
    assert results["serial"].stats.nfe == (1000,)
    assert results["preconditioned"].status == (Status.CONVERGED,)
    assert results["preconditioned"].stats.sweeps[0] < 100
    off = (results["serial"].image - results["preconditioned"].image).square().mean().sqrt() * 255
    assert off <= 0.5
