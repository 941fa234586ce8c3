from dataclasses import replace

import numpy as np
import pytest
import torch

import deqir
from conftest import Cramped, SmoothDenoiser
from deqir import operators
from deqir.adjoints import ImplicitAdjoint, UnrolledAdjoint
from deqir.choice import choose_solver
from deqir.errors import DeviceError, NonFiniteError, OptionError, ShapeError
from deqir.noise import SeededNoise
from deqir.restoration import Restorer
from deqir.solvers import Anderson, Status


def observe(operator, shape=(2, 3, 8, 8)):
    truth = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return truth, operator.forward(truth)


OPERATORS = {
    "sr": operators.SuperResolution(2),
    "odd": operators.SuperResolution(3).at((3, 8, 7)),
    "inpaint": operators.Inpainting(operators.random_mask(8, 8, 0.5, torch.Generator().manual_seed(0))),
    "colorize": operators.Colorization("luma"),
    "deblur": operators.Deblurring(operators.gaussian_kernel()),
    "cs": operators.CompressedSensing(0.5).at((3, 8, 8)),
}


@pytest.mark.parametrize("solver", ["serial", "picard", "anderson", "preconditioned"])
@pytest.mark.parametrize("name", OPERATORS)
def test_restored_images_in_unit_range_agree_with_the_observation(name, solver):
    operator = OPERATORS[name]
    truth, y = observe(operator, (2, 3, 8, 7) if name == "odd" else (2, 3, 8, 8))
    result = Restorer(SmoothDenoiser(), operator, steps=6, solver=solver, dtype="float64").restore(y)
    assert result.image.shape == truth.shape
    assert result.status == (Status.CONVERGED,) * 2
    assert (result.measurement_error < 1e-9).all()
    projected = operator.range_projection(truth)
    torch.testing.assert_close(operator.range_projection(result.image), projected, rtol=1e-9, atol=1e-9)


def test_serial_and_parallel_agree_and_count_their_calls():
    _, y = observe(OPERATORS["sr"])
    serial, parallel = (
        Restorer(SmoothDenoiser(), OPERATORS["sr"], steps=9, solver=solver, tolerance=0.0, dtype="float64").restore(y)
        for solver in ("serial", "anderson")
    )
    torch.testing.assert_close(serial.image, parallel.image, rtol=1e-9, atol=1e-9)
    assert serial.stats.sweeps == serial.stats.nfe == (9, 9)
    assert parallel.stats.sweeps == (9, 9)
    assert parallel.stats.nfe == (45, 45)
    assert parallel.residuals.shape == (9, 2)
    assert serial.residuals.numel() == 0


def test_the_seed_decides_and_images_do_not_depend_on_their_batch():
    _, y = observe(OPERATORS["sr"])
    restorer = Restorer(SmoothDenoiser(), OPERATORS["sr"], steps=5, solver="serial", dtype="float64")
    both, again = restorer.restore(y, seed=4).image, restorer.restore(y, seed=[4, 5]).image
    assert torch.equal(both, again)
    torch.testing.assert_close(restorer.restore(y[1:], seed=5).image, both[1:], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(restorer.restore(y, seed=6).image, both)


def test_masks_per_image():
    masks = torch.stack([operators.random_mask(8, 8, 0.5, torch.Generator().manual_seed(n))[0] for n in (1, 2)])
    truth = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    operator = operators.Inpainting(masks)
    both = Restorer(SmoothDenoiser(), operator, steps=5, solver="picard", dtype="float64").restore(
        operator.forward(truth)
    )
    alone = operators.Inpainting(masks[1:])
    single = Restorer(SmoothDenoiser(), alone, steps=5, solver="picard", dtype="float64").restore(
        alone.forward(truth[1:]), seed=1
    )
    torch.testing.assert_close(both.image[1:], single.image, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("operator", [operators.SuperResolution(2), operators.CompressedSensing(0.5).at((1, 8, 8))])
def test_grey_images_stay_grey_under_a_colour_prior(operator):
    truth = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    result = Restorer(SmoothDenoiser(), operator, steps=5, dtype="float64").restore(operator.forward(truth))
    assert result.image.shape == truth.shape
    assert result.measurement_error < 1e-9


def test_noisy_observations_get_their_own_rule():
    truth, y = observe(operators.Denoising())
    noisy = y + 0.3 * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
    serial, parallel = (
        Restorer(SmoothDenoiser(), operators.Denoising(), 10, noise=0.3, solver=solver, tolerance=0, dtype="float64")
        for solver in ("serial", "preconditioned")
    )
    restored = serial.restore(noisy).image
    assert (restored - truth).square().mean() < 0.8 * (noisy - truth).square().mean()
    torch.testing.assert_close(parallel.restore(noisy).image, restored, rtol=1e-9, atol=1e-9)


def test_progress_is_reported():
    _, y = observe(OPERATORS["sr"])
    seen = []
    Restorer(SmoothDenoiser(), OPERATORS["sr"], steps=5, solver="anderson").restore(y.float(), progress=seen.append)
    assert [report.sweep for report in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].done == seen[-1].total == 5
    assert seen[-1].image.shape == (2, 3, 8, 8)
    serial = []
    Restorer(SmoothDenoiser(), OPERATORS["sr"], steps=5, solver="serial").restore(y.float(), progress=serial.append)
    assert [report.done for report in serial] == [1, 2, 3, 4, 5]


def test_max_sweeps_is_obeyed_and_said():
    _, y = observe(OPERATORS["sr"])
    result = Restorer(SmoothDenoiser(), OPERATORS["sr"], steps=20, solver=Anderson(), max_sweeps=3).restore(y)
    assert result.stats.sweeps == (3, 3)
    assert result.status == (Status.MAX_SWEEPS,) * 2


def test_a_network_that_gives_nan_is_said():
    class Broken(SmoothDenoiser):
        def __call__(self, x, timesteps):
            return super().__call__(x, timesteps) * float("nan")

    _, y = observe(OPERATORS["sr"])
    for solver in ("serial", "picard"):
        result = Restorer(Broken(), OPERATORS["sr"], steps=4, solver=solver).restore(y)
        assert result.status == (Status.NON_FINITE,) * 2


def test_auto_measures_and_gives_its_reason():
    _, y = observe(OPERATORS["sr"])
    result = Restorer(SmoothDenoiser(), OPERATORS["sr"], steps=20, solver="auto").restore(y)
    assert result.stats.solver in ("serial", "preconditioned")
    assert "serial and" in result.stats.reason


@pytest.mark.parametrize(("cost", "expected"), [("per image", "serial"), ("per call", "preconditioned")])
def test_auto_follows_the_measured_times(monkeypatch, cost, expected):
    from conftest import make_chain

    monkeypatch.setattr("deqir.choice._seconds", lambda chain, batch: batch if cost == "per image" else 1 / batch)
    assert choose_solver(make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.0, steps=40)).solver == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -0.1}, "noise level is -0.2"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1001}, "steps is 1001"),
        ({"eta": 2.0}, "eta is 2.0"),
        ({"solver": "newton"}, "solver is 'newton'"),
        ({"tolerance": -1.0}, "tolerance is -1.0"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"max_sweeps": 0}, "max_sweeps is 0"),
        ({"max_batch": 0}, "max_batch is 0; choose auto or a whole number"),
        ({"max_batch": "many"}, "max_batch is 'many'"),
        ({"max_batch": 2.5}, "max_batch is 2.5"),
        ({"max_batch": True}, "max_batch is True"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"spacing": "odd"}, "spacing is 'odd'"),
    ],
)
def test_options_are_checked_at_once(options, message):
    with pytest.raises(OptionError, match=message):
        Restorer(SmoothDenoiser(), OPERATORS["sr"], **options)


def test_bad_observations():
    restorer = Restorer(SmoothDenoiser(), OPERATORS["sr"], steps=3)
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        restorer.restore(torch.full((1, 3, 4, 4), float("nan")))
    with pytest.raises(ShapeError, match="observation has shape"):
        restorer.restore(torch.zeros(0, 3, 4, 4))
    with pytest.raises(ShapeError, match="floating-point"):
        restorer.restore(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(OptionError, match="3 seeds for 1 observations"):
        restorer.restore(torch.zeros(1, 3, 4, 4), seed=[1, 2, 3])
    with pytest.raises(ShapeError, match="restored image has 2 channels"):
        restorer.restore(torch.zeros(1, 2, 4, 4))


def test_a_missing_device():
    with pytest.raises(DeviceError, match="device cuda:99 is not available"):
        Restorer(SmoothDenoiser(), OPERATORS["sr"], device="cuda:99").restore(torch.zeros(1, 3, 4, 4))


def test_running_out_of_memory_is_said():
    class Greedy(SmoothDenoiser):
        def __call__(self, x, timesteps):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

    class Odd(SmoothDenoiser):
        def __call__(self, x, timesteps):
            raise RuntimeError("something else")

    with pytest.raises(DeviceError, match="cpu ran out of memory, and smaller batches do not help; choose smaller"):
        Restorer(Greedy(), OPERATORS["sr"], solver="serial").restore(torch.zeros(1, 3, 4, 4))
    with pytest.raises(RuntimeError, match="something else"):
        Restorer(Odd(), OPERATORS["sr"], solver="serial").restore(torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("solver", ["auto", "serial", "picard", "anderson", "preconditioned"])
def test_memory_that_runs_out_changes_the_batches_and_nothing_else(solver):
    _, y = observe(OPERATORS["sr"], (3, 3, 8, 8))
    options = {"steps": 6, "solver": solver, "tolerance": 0.0, "dtype": "float64"}
    expected = Restorer(SmoothDenoiser(), OPERATORS["sr"], **options).restore(y)
    result = Restorer(Cramped(room=2), OPERATORS["sr"], **options).restore(y)
    torch.testing.assert_close(result.image, expected.image, rtol=1e-9, atol=1e-9)
    assert result.stats.max_batch <= 2
    assert result.stats.halvings > 0
    assert (expected.stats.max_batch, expected.stats.halvings) == (2048, 0)
    if solver != "auto":
        assert result.stats.nfe == expected.stats.nfe


def test_max_batch_given_is_the_limit_in_the_statistics():
    _, y = observe(OPERATORS["sr"])
    denoiser = SmoothDenoiser()
    result = Restorer(denoiser, OPERATORS["sr"], steps=6, solver="picard", max_batch=5).restore(y)
    assert (result.stats.max_batch, result.stats.halvings) == (5, 0)
    assert max(denoiser.calls) == 5


def test_one_image_that_does_not_fit_is_said():
    cramped = Cramped(room=0)
    with pytest.raises(DeviceError, match="ran out of memory, and smaller batches do not help"):
        Restorer(cramped, OPERATORS["sr"], steps=3, solver="serial").restore(torch.zeros(2, 3, 4, 4))
    assert cramped.calls == [2, 1]


def test_public_names_resolve():
    for name in deqir.__all__:
        assert getattr(deqir, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        deqir.nothing  # noqa: B018


def kept(prior, operator, **options):
    return Restorer(prior, operator, steps=30, dtype="float64", keep_trajectory=True, **options)


@pytest.mark.parametrize("solver", ["picard", "anderson", "triangular", "preconditioned"])
def test_a_start_from_the_answer_is_confirmed_at_once_and_changes_nothing(solver):
    prior, operator = SmoothDenoiser(), operators.SuperResolution(2)
    y = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    serial = kept(prior, operator, solver="serial").restore(y)
    assert serial.trajectory.shape == (30, 2, 3, 8, 8)
    torch.testing.assert_close((serial.trajectory[-1] + 1) / 2, serial.image)
    warm = kept(prior, operator, solver=solver).restore(y, start=serial.trajectory)
    assert warm.stats.sweeps == (1, 1)
    torch.testing.assert_close(warm.image, serial.image, rtol=0, atol=1e-6)


def test_a_start_from_a_neighbouring_problem_saves_sweeps():
    prior, operator = SmoothDenoiser(), operators.SuperResolution(2)
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(1, 3, 4, 4, dtype=torch.float64, generator=generator)
    near = y + 0.005 * torch.randn(y.shape, dtype=torch.float64, generator=generator)
    restorer = kept(prior, operator, solver="preconditioned")
    cold, warm = restorer.restore(near), restorer.restore(near, start=restorer.restore(y).trajectory)
    assert warm.stats.sweeps[0] < cold.stats.sweeps[0]
    serial = kept(prior, operator, solver="serial").restore(near)
    assert (warm.image - serial.image).square().mean().sqrt() * 255 <= 0.5


def test_a_start_that_does_not_fit():
    restorer = kept(SmoothDenoiser(), operators.SuperResolution(2), solver="picard")
    y = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    with pytest.raises(ShapeError, match="start has shape"):
        restorer.restore(y, start=torch.zeros(29, 1, 3, 8, 8))
    with pytest.raises(NonFiniteError, match="start holds NaN"):
        restorer.restore(y, start=torch.full((30, 1, 3, 8, 8), torch.nan))


@pytest.mark.parametrize("solver", ["picard", "anderson", "triangular", "preconditioned"])
def test_a_window_bounds_the_timesteps_of_a_sweep_and_keeps_the_answer(solver):
    prior, operator = SmoothDenoiser(), operators.SuperResolution(2)
    y = torch.rand(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    serial = kept(prior, operator, solver="serial").restore(y).image
    prior.calls.clear()
    result = kept(prior, operator, solver=solver, window=7).restore(y)
    assert max(prior.calls) <= 7
    assert prior.calls[:4] == [1, 1, 2, 1]  # whether the network gives the same twice, and in a batch
    assert sum(prior.calls[4:]) == result.stats.nfe[0]
    assert (result.image - serial).square().mean().sqrt() * 255 <= 0.5
    with pytest.raises(OptionError, match="window is 0"):
        Restorer(prior, operator, window=0)


def test_the_restored_image_can_be_differentiated(network):
    y = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    x_0 = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    found = {}
    for solver in ("serial", "preconditioned"):
        restorer = Restorer(network, operators.SuperResolution(2), steps=6, solver=solver, tolerance=0, dtype="float64")
        for adjoint in (UnrolledAdjoint(), ImplicitAdjoint(tolerance=0)):
            result = restorer.restore(y, initial_noise=x_0, adjoint=adjoint)
            gradient = torch.autograd.grad(result.image.square().sum(), (y, x_0))
            found[solver, type(adjoint)] = (result.image.detach(), *gradient)
            assert not result.measurement_error.requires_grad
    first = found["serial", UnrolledAdjoint]
    for other in found.values():
        for ours, theirs in zip(other, first, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_given_noise_replaces_the_drawn_one(network):
    y = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    restorer = Restorer(network, operators.SuperResolution(2), steps=4, solver="serial", dtype="float64")
    noise = SeededNoise((3, 8, 8), [5], 4, torch.device("cpu"), torch.float64)
    given = restorer.restore(y, seed=0, initial_noise=noise.initial, noises=noise[0:4])
    torch.testing.assert_close(given.image, restorer.restore(y, seed=5).image, rtol=0, atol=0)
    with pytest.raises(ShapeError, match="initial_noise has shape"):
        restorer.restore(y, initial_noise=noise.initial[:, :2])
    with pytest.raises(NonFiniteError, match="noises holds NaN"):
        restorer.restore(y, noises=noise[0:4] * torch.nan)


def test_a_list_of_timesteps_is_the_chain(network):
    restorer = Restorer(network, operators.Denoising(), spacing=[900, 300, 0], solver="serial", dtype="float64")
    assert restorer.steps == 3
    y = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    assert restorer.restore(y).stats.nfe == (3,)
    evenly, listed = (
        Restorer(network, operators.Denoising(), 3, spacing=spacing, solver="serial", dtype="float64").restore(y).image
        for spacing in ("uniform", (999, 500, 0))
    )
    torch.testing.assert_close(listed, evenly, rtol=0, atol=0)


class Replying(SmoothDenoiser):
    """A denoiser whose answer is spoilt by ``spoil``."""

    def __init__(self, spoil):
        super().__init__()
        self.spoil = spoil

    def __call__(self, x, timesteps):
        return self.spoil(super().__call__(x, timesteps))


SPOILT = {
    "nothing": (lambda predicted: None, "gave NoneType for"),
    "numpy": (lambda predicted: predicted.numpy(), "gave ndarray for"),
    "one number": (lambda predicted: predicted.mean(), r"gave \(\) for"),
    "too few": (lambda predicted: predicted[:-1], r"for \d+ images"),
    "one channel": (lambda predicted: predicted[:, :1], r"gave \(\d+, 1, 8, 8\) for noisy images \(\d+, 3, 8, 8\)"),
}


@pytest.mark.parametrize("solver", ["serial", "picard"])
@pytest.mark.parametrize("name", SPOILT)
def test_a_denoiser_that_gives_another_thing_is_refused(name, solver):
    spoil, message = SPOILT[name]
    _, y = observe(OPERATORS["sr"])
    with pytest.raises(ShapeError, match=message):
        Restorer(Replying(spoil), OPERATORS["sr"], steps=4, solver=solver, dtype="float64").restore(y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 2.5}, "steps is 2.5; give a whole number"),
        ({"steps": True}, "steps is True; give a whole number"),
        ({"window": 1.5}, "window is 1.5; give a whole number"),
        ({"max_sweeps": 1.5}, "max_sweeps is 1.5; give a whole number"),
        ({"travel_length": "2"}, "travel_length is '2'; give a whole number"),
        ({"eta": "x"}, "eta is 'x'; give a number"),
        ({"noise": None}, "noise is None; give a number"),
        ({"tolerance": True}, "tolerance is True; give a number"),
        ({"average": [1, 2]}, r"average is \[1, 2\]; give a number"),
    ],
)
def test_options_that_are_no_numbers_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        Restorer(SmoothDenoiser(), OPERATORS["sr"], **{"steps": 4, **options})


def test_numpy_numbers_are_numbers():
    _, y = observe(OPERATORS["sr"])
    plain = Restorer(SmoothDenoiser(), OPERATORS["sr"], steps=4, solver="picard", window=2, dtype="float64")
    numpy = replace(plain, steps=np.int64(4), window=np.int32(2), eta=np.float64(plain.eta))
    expected = plain.restore(y, 3).image
    for seed in (np.int64(3), [np.int64(3), 4], np.array([3, 4]), torch.tensor(3)):
        assert torch.equal(numpy.restore(y, seed).image, expected)


@pytest.mark.parametrize("seed", [1.5, "1", None, ["a", 1], True, {}, [[1], [2]]])
def test_a_seed_that_is_none_is_refused(seed):
    _, y = observe(OPERATORS["sr"])
    with pytest.raises(OptionError, match="seed"):
        Restorer(SmoothDenoiser(), OPERATORS["sr"], steps=2, solver="serial").restore(y, seed)


def test_an_observation_that_is_no_tensor_is_refused():
    with pytest.raises(ShapeError, match="of type ndarray; give a tensor"):
        Restorer(SmoothDenoiser(), OPERATORS["sr"], steps=2).restore(np.zeros((1, 3, 4, 4)))
