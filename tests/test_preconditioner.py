import pytest
import torch

from conftest import SHAPE, SmoothDenoiser, all_operators, make_chain
from deqir.bands import FrequencyBands
from deqir.equilibrium import solve_equilibrium
from deqir.errors import OptionError
from deqir.preconditioner import BandedSecant
from deqir.restoration import Restorer
from deqir.secants import Neighbourhood, SecantMemory
from deqir.solvers import Anderson, Picard, Status, solve

OPERATORS = all_operators()


class LinearDenoiser(SmoothDenoiser):
    """The exact denoiser of white Gaussian images: its Jacobian is one number a timestep."""

    def __call__(self, x, timesteps):
        a = self.schedule.alphas_cumprod[timesteps].to(x.dtype).view(-1, 1, 1, 1)
        return (1 - a).sqrt() / (a * self.variance + 1 - a) * x


@pytest.mark.parametrize("eta", [0.0, 0.85])
@pytest.mark.parametrize("name", OPERATORS)
def test_same_answer_as_the_serial_chain(name, eta):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], eta)
    solution = solve_equilibrium(chain, Picard(), tolerance=0.0, preconditioner=BandedSecant())
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_finite_termination_in_single_precision(eta):
    y = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    options = {"steps": 40, "eta": eta, "tolerance": 0.0}
    serial, parallel = (
        Restorer(SmoothDenoiser(), OPERATORS["sr"], solver=solver, **options).restore(y)
        for solver in ("serial", "preconditioned")
    )
    assert parallel.image.dtype == torch.float32
    assert max(parallel.stats.sweeps) <= 40
    assert parallel.estimated_error.tolist() == [0, 0]
    torch.testing.assert_close(parallel.image, serial.image, rtol=0, atol=1e-4)


def test_same_answer_with_a_real_network_and_anderson_on_top(network):
    chain = make_chain(network, OPERATORS["inpaint"], 0.85, steps=8)
    solution = solve_equilibrium(chain, Anderson(), tolerance=0.0, preconditioner=BandedSecant())
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-8, atol=1e-8)


def test_every_sweep_makes_one_more_state_exact_whatever_the_jacobian():
    chain = make_chain(SmoothDenoiser(), OPERATORS["inpaint"], 0.85)
    truth = []
    chain.sample(lambda done, state: truth.append(state))
    jacobian = BandedSecant().start(chain.step.levels, chain.initial_noise)
    learn = jacobian.learn

    def learn_nonsense(*arguments):
        learn(*arguments)
        jacobian.gains = torch.rand_like(jacobian.gains)

    jacobian.learn = learn_nonsense
    seen = []

    def watch(report):
        seen.append(int(report.finished[0]))
        for k in range(seen[-1]):
            torch.testing.assert_close(report.states[k], truth[k], rtol=1e-9, atol=1e-9)

    solve(Picard(), chain.preconditioned_sweep(jacobian), chain.repeated_noise_start(), torch.zeros(10), watch)
    assert seen == list(range(1, 11))


@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_a_linear_network_is_learned_in_a_few_sweeps(eta):
    chain = make_chain(LinearDenoiser(), OPERATORS["inpaint"], eta, steps=40)
    settings = BandedSecant(bands=1, trust=1e-9, reach=1e6, taught_reach=1e6, directions=0)
    solution = solve_equilibrium(chain, Picard(), tolerance=0.01, preconditioner=settings)
    plain = solve_equilibrium(chain, Picard(), tolerance=0.01)
    assert solution.status == (Status.CONVERGED,) * 2
    assert (solution.sweeps <= 4).all()
    assert (plain.sweeps > 15).all()
    torch.testing.assert_close(solution.value, chain.sample(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("eta", [0.0, 0.85])
@pytest.mark.parametrize("name", ["sr", "inpaint", "colorize"])
def test_the_start_is_the_serial_chain_of_a_gaussian_prior(name, eta):
    chain = make_chain(LinearDenoiser(), OPERATORS[name], eta, steps=30)
    jacobian = BandedSecant(start_variance=0.2, corner=1e6).start(chain.step.levels, chain.initial_noise)
    torch.testing.assert_close(chain.model_start(jacobian)[-1], chain.sample(), rtol=1e-6, atol=1e-6)


def test_far_from_where_the_network_looked_the_image_is_kept():
    chain = make_chain(SmoothDenoiser(), OPERATORS["denoise"], 0.85)
    jacobian = BandedSecant(reach=1e-9).start(chain.step.levels, chain.initial_noise)
    inputs = torch.zeros(10, *chain.initial_noise.shape, dtype=torch.float64)
    jacobian.learn(inputs, inputs + 1, torch.ones(10, 2, dtype=torch.bool))
    carried = torch.randn_like(inputs[0])
    torch.testing.assert_close(jacobian.predict(5, inputs[0] + 1, carried), carried)
    torch.testing.assert_close(jacobian.predict(5, inputs[0], carried), inputs[0] + 1)


def test_the_own_power_of_an_exact_denoiser_tells_its_gains():
    prior, settings = LinearDenoiser(), BandedSecant(bands=1, corner=1e6)
    levels = prior.schedule.levels(6)
    generator = torch.Generator().manual_seed(0)
    image, noise = (torch.randn(1, 3, 96, 96, dtype=torch.float64, generator=generator) for _ in range(2))
    a = levels.alphas[:-1].view(-1, 1, 1, 1, 1)
    states = a.sqrt() * prior.variance**0.5 * image + (1 - a).sqrt() * noise
    predictions = torch.stack([prior(x, t.expand(1)) for x, t in zip(states, levels.timesteps, strict=True)])
    jacobian = settings.start(levels, image)
    exact = jacobian.model.clone()
    jacobian.model = jacobian.model * 0
    jacobian.learn(states, predictions, torch.ones(6, 1, dtype=torch.bool))
    torch.testing.assert_close(jacobian.gains, exact, rtol=0.02, atol=0)


def memory_of(states, size=2, ridge=1e-12, noise=0.5):
    """A memory of ``states`` states of one noise level, so that none has neighbours."""
    return SecantMemory(size, ridge, Neighbourhood.of(torch.full((states,), noise, dtype=torch.float64)))


def random_pairs(count, shape):
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2)] for _ in range(count)]


def test_secants_reproduce_what_they_remember_and_leave_the_rest():
    shape = (4, 2, 3, 5, 6)
    memory = memory_of(4)
    pairs = random_pairs(3, shape)
    for moved, missed in pairs:
        memory.push(moved, missed)
    for moved, missed in pairs[1:]:
        torch.testing.assert_close(memory.correction(2, moved[2]), missed[2], rtol=1e-6, atol=1e-6)
    flat = torch.stack([moved[2].flatten(1) for moved, _ in pairs[1:]], 1)
    other = torch.randn(2, 90, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    other = other - flat.mT @ torch.linalg.solve(flat @ flat.mT, flat @ other)
    assert memory.correction(2, other.view(2, *shape[2:])).abs().max() < 1e-6


def test_a_model_that_changed_misses_less_or_more_of_what_is_remembered():
    memory, pairs = memory_of(4), random_pairs(2, (4, 2, 3, 5, 6))
    for moved, missed in pairs:
        memory.push(moved, missed, update=lambda move: 0.25 * move)
    (moved, missed), (latest, new) = pairs
    torch.testing.assert_close(memory.correction(1, moved[1]), (missed + 0.25 * moved)[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(memory.correction(1, latest[1]), new[1], rtol=1e-6, atol=1e-6)


def test_a_state_borrows_from_its_neighbours_in_units_of_the_noise():
    variances = torch.tensor([0.6, 0.5, 0.4, 1e-6], dtype=torch.float64)
    memory = SecantMemory(1, 1e-12, Neighbourhood.of(variances))
    moved, missed = random_pairs(1, (4, 2, 3, 5, 6))[0]
    taught = torch.tensor([True, False, True, True])[:, None].expand(4, 2)
    moved = torch.where(taught[..., None, None, None], moved, 0)
    memory.push(moved, missed)
    for j in (0, 2):
        expected = (variances[j] / variances[1]).sqrt() * missed[j]
        torch.testing.assert_close(memory.correction(1, moved[j]), expected, rtol=1e-6, atol=1e-6)
    assert not memory.correction(3, moved[0] - moved[0] * (moved[0] * moved[3]).mean()).isnan().any()
    other = moved[0] - moved[3] * (moved[0] * moved[3]).sum((1, 2, 3), True) / moved[3].square().sum((1, 2, 3), True)
    assert memory.correction(3, other).abs().max() < 1e-6, "the last state is not alike"


def test_neighbours_are_the_nearest_to_each_distance_once():
    levels = LinearDenoiser().schedule.levels(100)
    near = Neighbourhood.of(1 - levels.alphas[:-1])
    index, present = near.index
    logs = levels.noise_to_signal[:-1].log()
    assert torch.equal(index[:, 0], torch.arange(100)) and present[:, 0].all()
    for i in range(100):
        others = index[i][present[i]].tolist()
        assert len(others) == len(set(others))
        assert (logs[others] - logs[i]).abs().max() <= 1.2
    assert (present.sum(1) > 4).float().mean() > 0.8
    part, rest = near.section(10, 40), near.section(40, 60)
    both = part.followed_by(rest)
    for name in ("noise", "offsets", "present"):
        assert torch.equal(getattr(both, name), getattr(near.section(10, 60), name))
    assert both.index[0].max() < 50


def test_forgotten_states_teach_nothing():
    memory = memory_of(3)
    moved, missed = random_pairs(1, (3, 2, 3, 5, 6))[0]
    kept = torch.tensor([[True, True], [False, True], [True, True]])
    memory.push(moved, missed, kept)
    found = memory.correction(1, moved[1])
    assert not found[0].any()
    torch.testing.assert_close(found[1], missed[1, 1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_secants_of_moves_that_vanish_or_overflow_say_nothing(scale):
    memory = memory_of(2, ridge=0.01)
    moved = torch.full((2, 1, 1, 4, 4), scale)
    memory.push(moved, 2 * moved)
    displacement = torch.ones(1, 1, 4, 4)
    assert not memory.correction(0, displacement).any()
    good = torch.ones(2, 1, 1, 4, 4)
    for _ in range(2):
        memory.push(good, 2 * good)
    torch.testing.assert_close(memory.correction(0, displacement), 2 * displacement, rtol=0.02, atol=0)


def test_a_memory_of_size_zero_remembers_nothing():
    memory = memory_of(2, size=0)
    memory.push(torch.ones(2, 1, 1, 2, 2), torch.ones(2, 1, 1, 2, 2))
    assert memory.correction(0, torch.ones(1, 1, 2, 2)) is None


def test_gains_stay_within_their_bounds_and_finite():
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85)
    jacobian = BandedSecant().start(chain.step.levels, chain.initial_noise)
    generator = torch.Generator().manual_seed(0)
    everywhere = torch.ones(10, 2, dtype=torch.bool)
    for scale in (1.0, 1e20, 0.0, float("nan")):
        inputs, predictions = (torch.randn(10, 2, *SHAPE, generator=generator) * scale for _ in range(2))
        jacobian.learn(inputs, predictions, everywhere)
        assert jacobian.gains.isfinite().all()
        assert (jacobian.gains >= 0).all()
        assert (jacobian.gains <= jacobian.cap).all()


def test_an_image_does_not_depend_on_its_batch():
    both, alone = (make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85, steps=20, images=n) for n in (2, 1))
    together, single = (solve_equilibrium(c, Picard(), 0.1, preconditioner=BandedSecant()) for c in (both, alone))
    torch.testing.assert_close(together.value[:1], single.value, rtol=1e-9, atol=1e-9)
    assert together.sweeps[0] == single.sweeps[0]


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1), (1, 5), (2, 2)])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_bands_cover_every_frequency(size, count):
    bands = FrequencyBands.of(torch.zeros(size), count)
    assert bands.index.shape == bands.radius.shape == (size[0], size[1] // 2 + 1)
    assert bands.index.min() >= 0
    assert bands.index.max() <= count - 1
    if count > 1:
        assert (bands.index == 0).sum() == 1 or bands.radius.numel() == 1
    torch.testing.assert_close(
        bands.sum(torch.ones(bands.radius.shape)).sum(), torch.tensor(bands.radius.numel() * 1.0)
    )


def test_a_filter_with_even_gains_is_a_multiplication():
    images = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    bands = FrequencyBands.of(images, 8)
    torch.testing.assert_close(bands.filter(images, torch.full((2, 8), 0.3)), 0.3 * images)


NONSENSE = {
    "bands": 0,
    "decay": 2.0,
    "trust": 0.0,
    "variance": -1.0,
    "directions": -1,
    "reach": 0.0,
    "taught_reach": 0.0,
    "worth": 1.0,
    "start_error": -1.0,
}


@pytest.mark.parametrize("name", NONSENSE)
def test_settings_out_of_range(name):
    with pytest.raises(OptionError):
        BandedSecant(**{name: NONSENSE[name]})
