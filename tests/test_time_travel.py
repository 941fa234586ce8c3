from itertools import pairwise

import pytest
import torch

from conftest import SHAPE, SmoothDenoiser, all_operators, noises_of, observation_of
from deqir.chain import SamplingChain
from deqir.consistency import DDNM, DDRM, DDNMPlus, DiffPIR, TimeTravel
from deqir.equilibrium import solve_equilibrium
from deqir.errors import OptionError
from deqir.preconditioner import BandedSecant
from deqir.restoration import Restorer
from deqir.schedule import NoiseSchedule
from deqir.solvers import Anderson, Picard, TriangularAnderson

OPERATORS = all_operators()
SCHEDULE = NoiseSchedule.linear()
RULES = {
    "ddnm": DDNM(0.85),
    "ddnm eta 0": DDNM(0.0),
    "ddnm+": DDNMPlus(0.2),
    "ddrm": DDRM(0.2, 0.6, 0.7),
    "diffpir": DiffPIR(0.2),
}


def visits(steps, length, repeat):
    """The unit moves of DDNM's published schedule, written from its description: time steps - 1 down to -1.

    Whenever the walk arrives at 0, length, 2 length, ... below steps - length and has been sent back from there fewer
    than repeat - 1 times, it climbs by length.
    """
    sent = dict.fromkeys(range(0, steps - length, length), 0)
    times = [steps - 1]
    while times[-1] >= 0:
        times.append(times[-1] - 1)
        if times[-1] in sent and sent[times[-1]] < repeat - 1:
            sent[times[-1]] += 1
            times += [times[-1] + n + 1 for n in range(length)]
    return times


@pytest.mark.parametrize(("length", "repeat"), [(1, 2), (1, 3), (2, 2), (3, 4), (5, 2), (9, 3)])
def test_the_levels_are_those_of_the_published_schedule(length, repeat):
    base = SCHEDULE.levels(10, "leading")
    levels = base.with_travel(length, repeat)
    times = visits(10, length, repeat)
    down = [(t, after) for t, after in pairwise(times) if after < t]
    assert levels.timesteps.tolist() == [100 * t for t, _ in down]
    alphas = torch.cat([SCHEDULE.alphas_cumprod[::100], torch.ones(1)])  # -1: the restored image
    assert torch.equal(levels.alphas[:-1], alphas[[t for t, _ in down]])
    assert torch.equal(levels.descents, alphas[[after for _, after in down]])
    assert levels.alphas[-1] == levels.descents[-1] == 1


def test_the_published_schedule_by_hand():
    """travel_length 2, travel_repeat 2: 4 3 2 | 3 4 | 3 2 1 0 | 1 2 | 1 0 -1."""
    levels = SCHEDULE.levels(5, "leading").with_travel(2, 2)
    assert (levels.timesteps // 200).tolist() == [4, 3, 4, 3, 2, 1, 2, 1, 0]


def test_levels_that_do_not_travel():
    base = SCHEDULE.levels(5)
    assert base.with_travel(3, 1) is base
    for length, repeat, sentence in ((0, 2, "at least 1"), (1, 0, "at least 1"), (5, 2, "the chain has 5 steps")):
        with pytest.raises(OptionError, match=sentence):
            base.with_travel(length, repeat)


def chain_of(rule, name, origin="denoised", length=3, repeat=3):
    levels = SCHEDULE.levels(8).with_travel(length, repeat)
    noise = noises_of(2, 2 * len(levels))
    step = TimeTravel(rule, origin).bind(OPERATORS[name], observation_of(OPERATORS[name], 0.2), levels, noise)
    return SamplingChain(SmoothDenoiser(), step, step.first_state(noise.initial))


@pytest.mark.parametrize("origin", ["denoised", "state"])
@pytest.mark.parametrize("rule", RULES)
def test_the_chain_is_the_published_walk(rule, origin):
    """Move by move: the rule down; up, the published code noises the last clean estimate, the paper the last state.

    Only the last move up of a journey counts, as every one starts from there.
    """
    operator, denoiser = OPERATORS["inpaint"], SmoothDenoiser()
    chain, y = chain_of(RULES[rule], "inpaint", origin), observation_of(operator, 0.2)
    base, noise = SCHEDULE.levels(8), noises_of(2, 2 * len(chain))
    x, call = chain.initial_noise, -1
    for time, after in pairwise(visits(8, 3, 3)):
        here, there = 7 - time, 7 - after
        a, a_next = base.alphas[here], base.alphas[there]
        if after < time:
            call += 1
            e = denoiser(x, base.timesteps[here].expand(2))
            clean = (x - (1 - a).sqrt() * e) / a.sqrt()
            x = lowest = RULES[rule].bind(operator, y, base, {here: noise[call]})(here, x, e)
            a_lowest = a_next
        elif origin == "denoised":
            x = a_next.sqrt() * clean + (1 - a_next).sqrt() * noise[call]
        else:
            kept = a_next / a_lowest
            x = kept.sqrt() * lowest + (1 - kept).sqrt() * noise[len(chain) + call]
    assert call + 1 == len(chain)
    torch.testing.assert_close(chain.sample(), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("origin", ["denoised", "state"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["sr_bicubic", "inpaint", "cs"])
def test_parallel_equals_serial(name, rule, origin):
    chain = chain_of(RULES[rule], name, origin, repeat=2)
    for preconditioner in (None, BandedSecant()):
        solution = solve_equilibrium(chain, Picard(), tolerance=0.0, preconditioner=preconditioner)
        torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("make", [Picard, Anderson, TriangularAnderson])
def test_every_solver_and_window(make):
    chain = chain_of(DDNM(0.85), "sr")
    for window in (None, 4):
        solution = solve_equilibrium(chain, make(window=window), tolerance=0.0)
        torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-8, atol=1e-8)


def test_replay_equals_the_steps_from_any_state():
    chain = chain_of(DDNM(0.85), "sr")
    count = len(chain)
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(count + 1, 2, *SHAPE, dtype=torch.float64, generator=generator)
    predictions = torch.randn(count, 2, *SHAPE, dtype=torch.float64, generator=generator)
    replayed = chain.step.replay(states, predictions, torch.tensor([4, 4]), torch.tensor([count, count]))
    x = states[4]
    for i in range(4, count):
        x = chain.step(i, x, predictions[i])
        torch.testing.assert_close(replayed[i], x, rtol=1e-9, atol=1e-9)


def test_the_preconditioner_profits_in_chains_that_travel():
    rule, operator = TimeTravel(DDNM(0.85)), OPERATORS["inpaint"]
    levels = SCHEDULE.levels(25).with_travel(5, 2)
    noise = noises_of(2, len(levels))
    step = rule.bind(operator, observation_of(operator, 0.0), levels, noise)
    chain = SamplingChain(SmoothDenoiser(), step, noise.initial)
    plain, ours = (solve_equilibrium(chain, Picard(), 0.5, preconditioner=p) for p in (None, BandedSecant()))
    assert (ours.sweeps <= 0.8 * plain.sweeps).all()
    error = (ours.value - chain.sample()).square().mean((1, 2, 3)).sqrt() * 127.5
    assert (error <= 0.5).all()


@pytest.mark.parametrize("solver", ["serial", "picard", "preconditioned"])
def test_the_restorer_counts_every_network_call(solver):
    y = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options = {"tolerance": 0.0, "dtype": "float64", "travel_length": 3, "travel_repeat": 3}
    denoiser, seen = SmoothDenoiser(), []
    result = Restorer(denoiser, OPERATORS["sr"], 8, solver=solver, **options).restore(y, progress=seen.append)
    calls = len(SCHEDULE.levels(8).with_travel(3, 3))
    assert calls == 20
    assert seen[-1].done == seen[-1].total == calls
    probes = 0 if solver == "serial" else 5  # whether the network gives the same twice, and in a batch
    assert sum(denoiser.calls) == sum(result.stats.nfe) + probes
    assert max(result.stats.sweeps) <= calls
    assert solver == "preconditioned" or result.stats.sweeps == (calls, calls)  # it may be exact a sweep before
    if solver == "serial":
        assert result.stats.nfe == (calls, calls)
    assert result.measurement_error.max() < 1e-9
    again = Restorer(denoiser, OPERATORS["sr"], 8, solver="serial", rule=TimeTravel(DDNM()), **options).restore(y)
    torch.testing.assert_close(result.image, again.image, rtol=1e-9, atol=1e-9)


def test_a_rule_that_does_not_travel_is_refused():
    levels = SCHEDULE.levels(8).with_travel(2, 2)
    step = DDNM(0.0).bind(OPERATORS["denoise"], torch.zeros(1, *SHAPE), levels, None)
    with pytest.raises(OptionError, match="wrap it in TimeTravel"):
        SamplingChain(SmoothDenoiser(), step, torch.zeros(1, *SHAPE))
    with pytest.raises(OptionError, match="origin is 'moon'"):
        TimeTravel(DDNM(), "moon")
    with pytest.raises(OptionError, match="time travel needs the noise"):
        TimeTravel(DDNM(0.0)).bind(OPERATORS["denoise"], torch.zeros(1, *SHAPE), levels, None)
