"""Only a window of the chain in memory: the serial answer all the same, and nothing that grows with the steps."""

import gc
from dataclasses import dataclass, replace

import pytest
import torch

from conftest import (
    SHAPE,
    SmoothDenoiser,
    all_operators,
    causal_map,
    make_chain,
    noises_of,
    observation_of,
    serial_answer,
)
from deqir.chain import SamplingChain
from deqir.consistency import DDNM, DDRM, DDNMPlus, DiffPIR, TimeTravel
from deqir.equilibrium import solve_equilibrium
from deqir.errors import ShapeError
from deqir.operators import Inpainting, SuperResolution, random_mask
from deqir.preconditioner import BandedSecant
from deqir.report.recorder import Recorder, shown_states
from deqir.restoration import Restorer
from deqir.solvers import Anderson, Picard, Status, TriangularAnderson, solve

OPERATORS = all_operators()
SOLVERS = [Picard, Anderson, TriangularAnderson]
DOUBLE = torch.float64
RULES = {
    "ddnm": DDNM(0.85),
    "ddnm eta 0": DDNM(0.0),
    "ddnm+": DDNMPlus(0.2),
    "ddrm": DDRM(0.2),
    "diffpir": DiffPIR(0.2),
    "travel": TimeTravel(DDNM(0.85)),
    "travel from the state": TimeTravel(DDNMPlus(0.2), origin="state"),
}


@dataclass
class Forgetful:
    """The first ``held`` of ``length`` states of ``causal_map``, sliding over them; remembers the two before."""

    length: int
    held: int
    batch: int = 3
    base: int = 0

    def __post_init__(self):
        self.before = torch.ones(2, self.batch, 1, dtype=DOUBLE)

    def first(self):
        return torch.full((self.held, self.batch, 1), 3.0, dtype=DOUBLE)

    def sweep(self, states, prefix, stop):
        assert len(states) == self.held and (prefix >= 0).all() and (stop <= self.held).all()
        swept = causal_map(torch.cat([self.before, states]), prefix + 2, stop + 2)
        return swept[2:]

    def slide(self, states, count):
        assert 0 < count <= self.length - self.base - self.held
        self.base += count
        known = torch.cat([self.before, states])
        self.before = known[count : count + 2]
        return torch.cat([states[count:], torch.full((count, self.batch, 1), 3.0, dtype=DOUBLE)])


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("held", [1, 2, 5, 11])
@pytest.mark.parametrize("make", SOLVERS)
def test_what_a_window_over_everything_gives(make, held, carry):
    """The same iterates as a window over states that are all held, so the same counts and residuals."""
    rolling, solver = Forgetful(12, held), make(window=held, carry=carry)
    tolerances = torch.full((12,), 1e-6)
    ours = solve(solver, rolling.sweep, rolling.first(), tolerances, extrapolate=False, slide=rolling.slide)
    start = torch.full((12, 3, 1), 3.0, dtype=DOUBLE)
    whole = solve(solver, causal_map, start, tolerances, extrapolate=False)
    assert ours.status == (Status.CONVERGED,) * 3
    torch.testing.assert_close(ours.states, whole.states[-held:], rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.residuals, whole.residuals, rtol=0, atol=1e-12)
    assert torch.equal(ours.sweeps, whole.sweeps) and torch.equal(ours.evaluations, whole.evaluations)
    assert torch.equal(ours.finished, whole.finished)
    torch.testing.assert_close(ours.value[0], serial_answer(12)[-1, 0], rtol=0, atol=1e-5)


def test_a_solver_that_knows_nothing_of_sliding_begins_anew():
    class Plain(Anderson):
        slide = Picard.slide

    rolling = Forgetful(12, 4)
    solution = solve(Plain(), rolling.sweep, rolling.first(), torch.zeros(12), slide=rolling.slide)
    torch.testing.assert_close(solution.value[0], serial_answer(12)[-1, 0], rtol=0, atol=1e-14)
    assert rolling.base == 8 and solution.finished[-1].tolist() == [12] * 3


def test_what_does_not_fit():
    rolling = Forgetful(12, 4)
    with pytest.raises(ShapeError, match="do not fit"):
        solve(Picard(), rolling.sweep, torch.zeros(13, 3, 1), torch.zeros(12), slide=rolling.slide)
    with pytest.raises(ShapeError, match="do not fit"):
        solve(Picard(), rolling.sweep, rolling.first(), torch.zeros(12))


def test_a_failing_image_leaves_the_others_and_says_where():
    class Broken(Forgetful):
        def sweep(self, states, prefix, stop):
            images = super().sweep(states, prefix, stop)
            images[max(0, 7 - self.base) :, 1] = torch.nan
            return images

    rolling = Broken(12, 3)
    solution = solve(Picard(), rolling.sweep, rolling.first(), torch.zeros(12), slide=rolling.slide)
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED)
    assert solution.broken.tolist() == [-1, 7, -1]
    torch.testing.assert_close(solution.value[::2], serial_answer(12)[-1].expand(2, 1), rtol=0, atol=1e-14)


def chain_of(rule, operator, denoiser=None, steps=12, noises=None):
    denoiser = denoiser or SmoothDenoiser()
    levels = denoiser.schedule.levels(steps)
    if isinstance(rule, TimeTravel):
        levels = levels.with_travel(2, 2)
    noise = noises or noises_of(2, rule.noise_count(levels))
    step = rule.bind(operator, observation_of(operator, 0.1), levels, noise if rule.needs_noise else None)
    return SamplingChain(denoiser, step, step.first_state(noise.initial))


@pytest.mark.parametrize("preconditioner", [None, BandedSecant()], ids=["plain", "preconditioned"])
@pytest.mark.parametrize("make", SOLVERS)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_the_serial_answer(rule, make, preconditioner):
    chain = chain_of(rule, OPERATORS["inpaint"])
    for window in (1, 3, 7):
        solution = solve_equilibrium(chain, make(window=window), 0.0, preconditioner=preconditioner, kept=1)
        assert len(solution.states) == window
        torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_the_last_states_are_kept(name, eta):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], eta, steps=14)
    states = []
    chain.sample(lambda done, state: states.append(state))
    solution = solve_equilibrium(chain, Picard(window=3), 0.0, preconditioner=BandedSecant(), kept=6)
    torch.testing.assert_close(solution.states, torch.stack(states[-6:]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [1, 3])
def test_with_equations_of_an_order(order):
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85, steps=12, order=order)
    solution = solve_equilibrium(chain, TriangularAnderson(window=4), 0.0, kept=1)
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("preconditioner", [None, BandedSecant()], ids=["plain", "preconditioned"])
def test_within_the_tolerance_in_fewer_calls_than_serial(preconditioner):
    denoiser = SmoothDenoiser()
    chain = make_chain(denoiser, OPERATORS["sr"], 0.0, steps=60)
    serial = chain.sample()
    denoiser.calls.clear()
    solution = solve_equilibrium(chain, Picard(window=10), 0.5, preconditioner=preconditioner, kept=1)
    assert solution.status == (Status.CONVERGED,) * 2
    assert ((solution.value - serial).square().mean((1, 2, 3)).sqrt() * 127.5 <= 0.5).all()
    assert max(denoiser.calls) <= 2 * 10 and sum(denoiser.calls) == int(solution.evaluations.sum())
    assert int(solution.sweeps.max()) <= 40


def test_a_start_is_taken_where_it_is_given():
    chain = make_chain(SmoothDenoiser(), OPERATORS["inpaint"], 0.85, steps=30)
    states = []
    chain.sample(lambda done, state: states.append(state))
    cold, warm = (
        solve_equilibrium(chain, Picard(window=8), 0.5, start, BandedSecant(), kept=1)
        for start in (None, torch.stack(states))
    )
    assert (warm.sweeps < cold.sweeps).all()
    torch.testing.assert_close(warm.value, states[-1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("preconditioner", [None, BandedSecant()], ids=["plain", "preconditioned"])
def test_where_it_ends_early_the_image_is_what_is_known_so_far(preconditioner):
    """Not the noisy state that happens to be the last one held."""
    chain = make_chain(SmoothDenoiser(), OPERATORS["inpaint"], 0.85, steps=40)
    guesses = []
    solver = Picard(window=5, max_sweeps=6)
    watch = guesses.append
    solution = solve_equilibrium(chain, solver, 0.0, None, preconditioner, lambda r: watch(r.guess), kept=1)
    assert solution.status == (Status.MAX_SWEEPS,) * 2 and solution.errors.isinf().all()
    operator = OPERATORS["inpaint"]
    torch.testing.assert_close(operator.forward(solution.value), operator.forward(chain.step.observed))
    torch.testing.assert_close(guesses[-1], solution.value, rtol=0, atol=0)


def test_an_untaught_model_in_parts():
    """Slid from one end to the other it is the model of the last part, whatever it learned before."""
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85, steps=12)
    whole = BandedSecant().start(chain.step.levels, chain.initial_noise)
    part = whole.section(0, 4)
    for index in range(3):
        states = torch.randn(4, 2, *SHAPE, dtype=DOUBLE, generator=torch.Generator().manual_seed(index))
        part.learn(states, states.sin(), torch.ones(4, 2, dtype=torch.bool))
    for first in (4, 6, 8):
        part.slide(whole.section(first + 4 - (4 if first == 4 else 2), first + 4))
    expected = whole.section(8, 12)
    for name in ("noise", "gains", "model", "products", "squares", "cap", "weights"):
        torch.testing.assert_close(getattr(part, name), getattr(expected, name))
    x = torch.ones(2, *SHAPE, dtype=DOUBLE)
    torch.testing.assert_close(part.respond(1, x), expected.respond(1, x))
    assert not part.before[2].any()


def restorer_of(operator, **options):
    settings = {"steps": 25, "dtype": "float64", "tolerance": 0.0, "device": "cpu", "solver": "preconditioned"}
    return Restorer(SmoothDenoiser(), operator, **(settings | options))


def photos(operator, images=1, side=8):
    return operator.forward(torch.rand(images, 3, side, side, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("average", [0.0, 0.3])
@pytest.mark.parametrize("rule", ["ddnm", "ddnm+", "diffpir"])
def test_the_facade(rule, average):
    operator = SuperResolution(2)
    y, noise = photos(operator, 2), 0.0 if rule == "ddnm" else 0.05
    options = {"rule": rule, "noise": noise, "average": average, "travel_length": 2, "travel_repeat": 2}
    serial = restorer_of(operator, solver="serial", **options).restore(y)
    for window in (4, 40):
        result = restorer_of(operator, window=window, **options).restore(y)
        torch.testing.assert_close(result.image, serial.image, rtol=1e-9, atol=1e-9)
    kept = restorer_of(operator, window=4, keep_trajectory=True, **options).restore(y)
    assert kept.trajectory.shape == (
        restorer_of(operator, **options).chain(y).step.levels.timesteps.shape[0],
        2,
        3,
        8,
        8,
    )


def test_a_report_sees_every_state_it_shows():
    operator = SuperResolution(2)
    y, recorder = photos(operator), Recorder()
    restorer = restorer_of(operator, window=4)
    restorer.restore(y, progress=recorder)
    whole = restorer_of(operator, solver="serial", keep_trajectory=True).restore(y).trajectory
    assert set(shown_states(25)) <= set(recorder.states)
    for number in shown_states(25):
        torch.testing.assert_close(recorder.states[number], whole[number - 1].cpu(), rtol=1e-9, atol=1e-9)
    assert all(len(residuals) == 25 for residuals in recorder.residuals)


def largest_storage(steps, window):
    """The bytes of all tensors that exist while a restoration of ``steps`` steps goes on, at most."""
    operator = Inpainting(random_mask(32, 32, 0.5, torch.Generator().manual_seed(0)))
    y, most = photos(operator, side=32), 0
    gc.collect()

    def watch(progress):
        nonlocal most
        tensors = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if is_tensor(t)
        }
        most = max(most, sum(tensors.values()))

    restorer_of(operator, steps=steps, window=window, max_sweeps=20).restore(y, progress=watch)
    return most


def is_tensor(thing):
    """Whether ``thing`` holds numbers in memory of its own: other tests leave sparse, fake and proxy tensors behind."""
    return type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.layout == torch.strided and thing.is_cpu


def test_memory_does_not_grow_with_the_steps():
    few, many, all_held = largest_storage(40, 6), largest_storage(160, 6), largest_storage(160, None)
    state = 3 * 32 * 32 * 8
    assert abs(many - few) < 8 * state
    assert all_held - many > 8 * 150 * state


def test_noises_in_memory_are_bounded_and_drawn_once(monkeypatch):
    noise = noises_of(2, 30)
    drawn, draw = [], type(noise)._draw
    monkeypatch.setattr(type(noise), "_draw", lambda self, what: drawn.append(what) or draw(self, what))
    noise.held = 10
    chain = chain_of(RULES["ddnm"], OPERATORS["sr"], steps=30, noises=noise)
    solve_equilibrium(chain, Picard(window=4), 0.1, preconditioner=BandedSecant(), kept=1)
    assert len(noise._some) == 10
    assert sorted(drawn) == sorted(["initial", *map(str, range(30))])
    fresh = noises_of(2, 30)
    for steps in (3, slice(28, 30), slice(0, 2), 29):
        assert torch.equal(noise[steps], fresh[steps])
    assert len(noise._some) == 10


def test_the_batcher_is_shared_by_all_parts():
    """So that what memory has turned out to hold is known everywhere."""
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.0, max_batch=4)
    part = chain.section(2, 7, chain.initial_noise)
    assert part.batcher is chain.batcher and part.section(1, 3, chain.initial_noise).batcher is chain.batcher
    assert len(part) == 5 and torch.equal(part.step.levels.alphas, chain.step.levels.alphas[2:8])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_section_of_a_section_is_the_chain_there(rule):
    chain = chain_of(rule, OPERATORS["deblur"])
    step = chain.step.section(2, 11).section(1, 5)
    x, e = (torch.randn(2, *SHAPE, dtype=DOUBLE, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    assert len(step.levels) == 4
    for i in range(4):
        torch.testing.assert_close(step(i, x, e), chain.step(3 + i, x, e), rtol=0, atol=0)
        for ours, whole in zip(step.transpose(i, x), chain.step.transpose(3 + i, x), strict=True):
            torch.testing.assert_close(ours, whole, rtol=0, atol=0)
    assert replace(chain, step=step).step.travels == isinstance(rule, TimeTravel)
