"""The mean of a chain's last estimates: which steps, one answer by every solver, and still in agreement with y."""

import json
from dataclasses import replace

import pytest
import torch

from conftest import SHAPE, all_operators, sentence
from deqir.adjoints import ImplicitAdjoint
from deqir.averaging import EstimateMean, ReplayedMean, averaged_steps
from deqir.equilibrium import solve_equilibrium
from deqir.errors import OptionError
from deqir.images import read_image
from deqir.restoration import Restorer
from deqir.schedule import NoiseSchedule
from deqir.solvers import Picard, Status

OPERATORS = all_operators()
LEVELS = NoiseSchedule.linear().levels(20)
EXACT = {"steps": 12, "dtype": "float64", "tolerance": 0.0}


def observation(operator, images=2):
    truth = torch.rand(images, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return operator.forward(truth)


def test_the_steps_are_the_last_ones_of_little_noise():
    noise = LEVELS.noise_to_signal / 2
    for below in (0.0, 0.01, 0.1, 0.5, 1e9):
        steps = averaged_steps(LEVELS, below)
        assert steps.stop == 20 and len(steps) == max(1, int((noise[:-1] <= below).sum()))
    assert averaged_steps(LEVELS, 1e9) == range(20)


def test_steps_that_travel_back_are_left_out():
    travelling = LEVELS.with_travel(3, 2)
    steps = averaged_steps(travelling, 1e9)
    back = [i for i in range(len(travelling)) if travelling.step(i)[1] != float(travelling.alphas[i + 1])]
    assert steps == range(max(back) + 1, len(travelling)) and len(steps) > 1


@pytest.mark.parametrize("name", OPERATORS)
def test_the_image_is_the_mean_of_the_estimates(network, name):
    operator = OPERATORS[name]
    y = observation(operator)
    restorer = Restorer(network, operator, solver="serial", average=0.3, keep_trajectory=True, **EXACT)
    result, chain = restorer.restore(y), restorer.chain(y)
    steps = averaged_steps(chain.step.levels, 0.3)
    assert 1 < len(steps) < 12
    states, estimates = torch.cat([chain.initial_noise[None], result.trajectory]), []
    for i in steps:
        e = chain.predict(states[i], chain.step.levels.timesteps[i].expand(len(y)))
        estimates.append((chain.step.parts(i, states[i], e)[0] + 1) / 2)
    torch.testing.assert_close(result.image, torch.stack(estimates).mean(0), rtol=1e-12, atol=1e-12)
    moved = (result.image - (result.trajectory[-1] + 1) / 2).abs().max()
    assert moved < 1e-12 if name == "denoise" else moved > 1e-4  # without noise there, all is known
    torch.testing.assert_close(operator.forward(result.image), y)
    assert result.stats.sweeps == result.stats.nfe == (12, 12)


@pytest.mark.parametrize("rule", ["ddnm+", "ddrm", "diffpir"])
def test_with_noise_it_is_the_mean_of_what_the_network_estimates(network, rule):
    operator = OPERATORS["sr"]
    y = observation(operator)
    options = {"noise": 0.1, "rule": rule, "average": 0.3, **EXACT}
    result = Restorer(network, operator, solver="serial", keep_trajectory=True, **options).restore(y)
    chain = Restorer(network, operator, **options).chain(y)
    states, estimates = torch.cat([chain.initial_noise[None], result.trajectory]), []
    for i in averaged_steps(chain.step.levels, 0.3):
        alpha, timestep = chain.step.levels.alphas[i], chain.step.levels.timesteps[i]
        e = chain.predict(states[i], timestep.expand(len(y)))
        estimates.append(((states[i] - (1 - alpha).sqrt() * e) / alpha.sqrt() + 1) / 2)
    torch.testing.assert_close(result.image, torch.stack(estimates).mean(0), rtol=1e-12, atol=1e-12)
    parallel = Restorer(network, operator, solver="preconditioned", **options).restore(y)
    torch.testing.assert_close(parallel.image, result.image, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("average", [0.3, 1e9])
@pytest.mark.parametrize("solver", ["picard", "anderson", "triangular", "preconditioned"])
def test_every_solver_gives_the_serial_mean(network, solver, average):
    operator = OPERATORS["inpaint"]
    y = observation(operator)
    serial = Restorer(network, operator, solver="serial", average=average, **EXACT).restore(y)
    plain = Restorer(network, operator, solver=solver, **EXACT).restore(y)
    parallel = Restorer(network, operator, solver=solver, average=average, max_batch=3, **EXACT).restore(y)
    torch.testing.assert_close(parallel.image, serial.image, rtol=1e-9, atol=1e-9)
    assert parallel.stats.sweeps == plain.stats.sweeps and parallel.stats.nfe == plain.stats.nfe  # it costs no call


@pytest.mark.parametrize("rule", ["ddnm", "ddnm+", "ddrm", "diffpir"])
@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("solver", ["picard", "anderson", "preconditioned"])
def test_a_rolling_window_and_time_travel_give_it_too(network, solver, window, rule):
    operator = OPERATORS["sr"]
    y = observation(operator)
    travel = {"travel_length": 2, "travel_repeat": 2} if rule == "ddnm" else {"noise": 0.1}
    options = {"average": 0.5, "rule": rule, **travel, **EXACT}
    serial = Restorer(network, operator, solver="serial", **options).restore(y)
    rolled = Restorer(network, operator, solver=solver, window=window, **options).restore(y)
    torch.testing.assert_close(rolled.image, serial.image, rtol=1e-8, atol=1e-8)


def test_equations_of_an_order_give_it_too(network):
    operator = OPERATORS["inpaint"]
    restorer = Restorer(network, operator, solver="serial", average=0.3, **EXACT)
    chain, y = restorer.chain(observation(operator)), observation(operator)
    mean = EstimateMean(averaged_steps(chain.step.levels, 0.3), chain.step.levels)
    replayed = ReplayedMean(mean)
    watched = replayed.watch(replace(chain, order=3))
    solution, value = replayed.of(chain, solve_equilibrium(watched, Picard(), 0.0))
    torch.testing.assert_close((value + 1) / 2, restorer.restore(y).image, rtol=1e-9, atol=1e-9)
    assert solution.sweeps.tolist() == [12, 12]


@pytest.mark.parametrize("tolerance", [0.5, 2.0])
def test_within_the_tolerance_it_is_the_serial_mean(network, tolerance):
    operator = OPERATORS["inpaint"]
    y = observation(operator)
    options = {**EXACT, "steps": 30, "tolerance": tolerance, "average": 0.3}
    serial = Restorer(network, operator, solver="serial", **options).restore(y)
    parallel = Restorer(network, operator, solver="preconditioned", **options).restore(y)
    assert max(parallel.stats.sweeps) < 15
    error = 255 * (parallel.image - serial.image).square().flatten(1).mean(1).sqrt()
    assert (error <= tolerance).all()


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_solve_that_ends_before_the_last_steps_calls_the_network_for_them(network, noise):
    operator = OPERATORS["sr"]
    y = observation(operator)
    options = {"solver": "picard", "window": 4, "max_sweeps": 2, "noise": noise, **EXACT}
    plain = Restorer(network, operator, **options).restore(y)
    early = Restorer(network, operator, average=0.3, **options).restore(y)
    count = len(averaged_steps(NoiseSchedule.linear().levels(12), 0.3))
    assert early.image.isfinite().all() and early.status == (Status.MAX_SWEEPS,) * 2
    assert early.stats.sweeps == tuple(sweeps + 1 for sweeps in plain.stats.sweeps)
    assert early.stats.nfe == tuple(nfe + count for nfe in plain.stats.nfe)


def test_nothing_changes_without_it_and_in_a_noiseless_last_step(network):
    y = observation(OPERATORS["sr"])
    plain = Restorer(network, OPERATORS["sr"], solver="serial", **EXACT).restore(y).image
    last = Restorer(network, OPERATORS["sr"], solver="serial", average=1e-9, **EXACT).restore(y).image
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("average", [-0.1, float("nan")])
def test_what_is_no_noise_level_is_refused(network, average):
    with pytest.raises(OptionError, match="average is"):
        Restorer(network, OPERATORS["sr"], average=average)


@pytest.mark.parametrize("solver", ["serial", "preconditioned"])
def test_a_mean_is_not_differentiated(network, solver):
    restorer = Restorer(network, OPERATORS["sr"], solver=solver, average=0.1, **EXACT)
    with pytest.raises(OptionError, match="cannot be differentiated"):
        restorer.restore(observation(OPERATORS["sr"]), adjoint=ImplicitAdjoint())


def test_the_command_line_records_and_repeats_it(deqir, photo, tmp_path):
    arguments = ("restore", photo, "--task", "inpaint", "--simulate", "--solver", "serial")
    assert deqir(*arguments, "--out", tmp_path / "plain")[0] == 0
    code, _, err = deqir(*arguments, "--average", "0.5", "--out", tmp_path / "o", "--stats", tmp_path / "s.json")
    assert code == 0, err
    assert json.loads((tmp_path / "s.json").read_text())[0]["average"] == 0.5
    assert not read_image(tmp_path / "o" / "photo.png").equal(read_image(tmp_path / "plain" / "photo.png"))
    assert ": identical" in deqir("verify", tmp_path / "s.json")[1]
    code, _, err = deqir("restore", photo, "--config", tmp_path / "s.json", "--simulate", "--out", tmp_path / "again")
    assert code == 0, err
    assert read_image(tmp_path / "o" / "photo.png").equal(read_image(tmp_path / "again" / "photo.png"))
    code, _, err = deqir(*arguments, "--average", "-1", "--out", tmp_path / "n")
    assert code != 0 and "average is -1" in sentence(err)
