import pytest
import torch

from conftest import SHAPE, SmoothDenoiser, all_operators, make_chain
from deqir.chain import serial_solution
from deqir.consistency import DDNM, AffineStep
from deqir.errors import OptionError
from deqir.noise import SeededNoise
from deqir.operators import Inpainting, random_mask
from deqir.schedule import NoiseSchedule
from deqir.solvers import Status

MASKS = torch.cat([random_mask(8, 8, 0.5, torch.Generator().manual_seed(seed)) for seed in (1, 2)])
OPERATORS = {**all_operators(), "a mask per image": Inpainting(MASKS)}
ETAS = (0.0, 0.85, 1.0)
ALL, NONE = torch.tensor([10, 10]), torch.tensor([0, 0])
RANGES = [
    ([0, 0], [10, 10]),
    ([0, 4], [10, 10]),
    ([9, 3], [10, 10]),
    ([10, 2], [10, 10]),
    ([10, 10], [10, 10]),
    ([0, 4], [3, 7]),
    ([10, 1], [10, 2]),
]


def serial_states(chain):
    states = []
    chain.sample(lambda done, state: states.append(state))
    return torch.stack(states)


@pytest.mark.parametrize("order", [None, 1, 3, 10])
@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("name", OPERATORS)
def test_closed_form_equals_step_by_step_replay(name, eta, order):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], eta)
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(11, 2, *SHAPE, dtype=torch.float64, generator=generator)
    predictions = torch.randn(10, 2, *SHAPE, dtype=torch.float64, generator=generator)
    for prefix, stop in RANGES:
        ends = torch.tensor(prefix), torch.tensor(stop)
        closed = chain.step.replay(states, predictions, *ends, order)
        replayed = AffineStep.replay(chain.step, states, predictions, *ends, order)
        torch.testing.assert_close(closed, replayed, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("name", OPERATORS)
def test_the_serial_trajectory_is_a_fixed_point_of_the_sweep(name, eta):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], eta)
    states = serial_states(chain)
    torch.testing.assert_close(chain.sweep(states, NONE, ALL), states, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OPERATORS)
def test_restored_images_agree_with_the_observation(name):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], 0.85)
    operator = OPERATORS[name]
    again = operator.pinv(operator.forward(chain.sample()))
    torch.testing.assert_close(again, chain.step.observed, rtol=1e-9, atol=1e-9)


def test_a_step_is_the_papers_formula_on_a_dense_matrix():
    operator = OPERATORS["sr_bicubic"]
    chain = make_chain(SmoothDenoiser(), operator, 0.85, images=1)
    matrix = operator.as_matrix(SHAPE)
    inverse = torch.linalg.pinv(matrix)
    generator = torch.Generator().manual_seed(1)
    x, e = (torch.randn(1, *SHAPE, dtype=torch.float64, generator=generator) for _ in range(2))
    y = (matrix @ inverse @ matrix @ torch.linspace(-1, 1, 192, dtype=torch.float64)).view(-1)
    a, a_next = chain.step.levels.alphas[4:6]
    clean = ((x - (1 - a).sqrt() * e) / a.sqrt()).view(-1)
    corrected = clean + inverse @ (y - matrix @ clean)
    z = chain.step.noises[4].view(-1)
    expected = a_next.sqrt() * corrected + (1 - a_next).sqrt() * ((1 - 0.85**2) ** 0.5 * e.view(-1) + 0.85 * z)
    step = DDNM(0.85).bind(
        operator,
        (y.view(1, -1) @ torch.eye(len(y), dtype=torch.float64)).view(1, 3, 4, 4),
        chain.step.levels,
        chain.step.noises,
    )
    torch.testing.assert_close(step(4, x, e).view(-1), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("max_batch", [1, 3, 7, 100])
def test_the_network_never_sees_more_than_max_batch(max_batch):
    denoiser = SmoothDenoiser()
    chain = make_chain(denoiser, OPERATORS["sr"], 0.85, max_batch=max_batch)
    states = chain.repeated_noise_start()
    expected = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85).sweep(states, torch.tensor([0, 4]), ALL)
    torch.testing.assert_close(chain.sweep(states, torch.tensor([0, 4]), ALL), expected, rtol=1e-12, atol=1e-12)
    assert max(denoiser.calls) <= max_batch
    assert sum(denoiser.calls) == 10 + 6


def test_max_batch_must_be_positive():
    with pytest.raises(OptionError, match="max_batch is 0"):
        make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.0, max_batch=0)


def test_noise_depends_on_the_seed_and_the_step_alone():
    cpu, double = torch.device("cpu"), torch.float64
    many = SeededNoise(SHAPE, [5, 9], 4, cpu, double)
    one = SeededNoise(SHAPE, [9], 7, cpu, double)
    assert torch.equal(many.initial[1], one.initial[0])
    assert torch.equal(many[2][1], one[2][0])
    assert torch.equal(many[1:][1][1], one[2][0])
    assert torch.equal(many[2], many[slice(2, 3)][0])
    assert not torch.equal(one[2], one[3])
    assert not torch.equal(many.initial[0], many.initial[1])


def test_noise_is_standard_gaussian():
    noise = SeededNoise((3, 64, 64), [0], 4, torch.device("cpu"), torch.float32)[0:]
    assert noise.mean().abs() < 0.02
    assert (noise.std() - 1).abs() < 0.02
    flat = noise.flatten(1)
    correlation = (flat @ flat.T) / flat.shape[1]
    assert (correlation - torch.eye(4)).abs().max() < 0.05


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_eta_outside_its_range(eta):
    with pytest.raises(OptionError, match="eta is"):
        DDNM(eta)


def test_noise_must_be_given_for_positive_eta():
    levels = NoiseSchedule.linear().levels(3)
    with pytest.raises(OptionError, match="no noises"):
        DDNM(0.5).bind(OPERATORS["sr"], torch.zeros(1, 3, 4, 4), levels, None)


def test_starts():
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85)
    assert (chain.repeated_noise_start() == chain.initial_noise).all()
    clean = torch.rand_like(chain.initial_noise)
    start = chain.noised_start(clean)
    torch.testing.assert_close(start[-1], clean)
    a = chain.step.levels.alphas[3]
    torch.testing.assert_close(start[2], a.sqrt() * clean + (1 - a).sqrt() * chain.initial_noise)


def test_the_serial_walk_keeps_what_is_asked_and_shows_every_state():
    chain, seen = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85), []
    alone, kept = serial_solution(chain), serial_solution(chain, True, lambda done, state: seen.append((done, state)))
    assert alone.states.shape == (1, 2, *SHAPE)
    assert [done for done, _ in seen] == list(range(1, 11))
    assert torch.equal(torch.stack([state for _, state in seen]), kept.states)
    assert torch.equal(alone.value, kept.value)


@pytest.mark.parametrize("below", [500, 1000])
def test_the_serial_walk_names_the_first_broken_state_of_each_image(below):
    class Breaking(SmoothDenoiser):
        def __call__(self, x, timesteps):
            predicted = super().__call__(x, timesteps)
            predicted[1][timesteps[1] < below] = torch.nan
            return predicted

    chain = make_chain(Breaking(), OPERATORS["sr"], 0.0)
    solution = serial_solution(chain)
    first = int((chain.step.levels.timesteps < below).nonzero()[0])
    assert solution.broken.tolist() == [-1, first]
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE)
    assert solution.value[0].isfinite().all()
