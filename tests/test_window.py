import pytest
import torch

from conftest import SHAPE, SmoothDenoiser, all_operators, causal_map, make_chain, serial_answer
from deqir.chain import SamplingChain
from deqir.consistency import DDNMPlus
from deqir.equilibrium import solve_equilibrium
from deqir.errors import OptionError
from deqir.noise import SeededNoise
from deqir.preconditioner import BandedSecant
from deqir.solvers import Anderson, Picard, Status, TriangularAnderson, solve

OPERATORS = all_operators()
SOLVERS = [Picard, Anderson, TriangularAnderson]
DOUBLE = torch.float64


def serial_states(chain):
    states = []
    chain.sample(lambda done, state: states.append(state))
    return torch.stack(states)


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("window", [1, 2, 5, 12, 100])
@pytest.mark.parametrize("make", SOLVERS)
def test_exact_with_any_window_from_any_start(make, window, carry):
    start = torch.randn(12, 3, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * 100
    solution = solve(make(window=window, carry=carry), causal_map, start, torch.zeros(12))
    torch.testing.assert_close(solution.states, serial_answer(12).expand(12, 3, 1), rtol=0, atol=1e-14)
    assert solution.status == (Status.CONVERGED,) * 3
    assert (solution.sweeps <= 12).all()
    assert solution.evaluations.tolist() == [sum(min(window, 12 - n) for n in range(12))] * 3


@pytest.mark.parametrize("make", SOLVERS)
def test_a_window_of_all_states_changes_nothing(make):
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.0, steps=20)
    plain, windowed = (solve_equilibrium(chain, make(window=w), 0.1) for w in (None, 20))
    assert torch.equal(plain.states, windowed.states)
    assert torch.equal(plain.evaluations, windowed.evaluations)
    assert torch.equal(plain.residuals.nan_to_num(), windowed.residuals.nan_to_num())


def test_a_window_of_one_walks_serially():
    chain = make_chain(SmoothDenoiser(), OPERATORS["inpaint"], 0.85)
    solution = solve_equilibrium(chain, Picard(window=1), tolerance=1e6)
    torch.testing.assert_close(solution.states, serial_states(chain), rtol=1e-9, atol=1e-9)
    assert solution.sweeps.tolist() == solution.evaluations.tolist() == [10, 10]


@pytest.mark.parametrize("eta", [0.0, 0.85])
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("make", SOLVERS)
def test_parallel_equals_serial_with_a_window(make, name, eta):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], eta)
    solution = solve_equilibrium(chain, make(window=4), tolerance=0.0)
    torch.testing.assert_close(solution.states, serial_states(chain), rtol=1e-9, atol=1e-9)


def test_with_the_preconditioned_sweep():
    chain = make_chain(SmoothDenoiser(), OPERATORS["cs"], 0.85)
    solution = solve_equilibrium(chain, Anderson(window=3), tolerance=0.0, preconditioner=BandedSecant())
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-9, atol=1e-9)


def test_the_network_sees_no_more_than_the_window():
    denoiser = SmoothDenoiser()
    chain = make_chain(denoiser, OPERATORS["sr"], 0.0, steps=20)
    solution = solve_equilibrium(chain, Picard(window=4), tolerance=0.1)
    assert max(denoiser.calls) <= 2 * 4
    assert sum(denoiser.calls) == int(solution.evaluations.sum())


def test_every_image_has_a_window_of_its_own():
    calls = []

    def watched(states, prefix, stop):
        calls.append((prefix.tolist(), stop.tolist()))
        return causal_map(states, prefix, stop)

    start = torch.full((9, 2, 1), 3.0, dtype=DOUBLE)
    start[:7, 1] = serial_answer(9)[:7, 0]
    solution = solve(Picard(window=3), watched, start, torch.full((9,), 1e-12))
    assert calls[:3] == [([0, 0], [3, 3]), ([1, 3], [4, 6]), ([2, 6], [5, 9])]
    assert all(s == min(p + 3, 9) for call in calls for p, s in zip(*call, strict=True))
    evaluated = torch.tensor([[s - p for p, s in zip(*call, strict=True)] for call in calls]).sum(0)
    assert torch.equal(evaluated, solution.evaluations)
    torch.testing.assert_close(solution.states, serial_answer(9).expand(9, 2, 1), rtol=0, atol=1e-11)


@pytest.mark.parametrize("make", SOLVERS)
def test_states_beyond_the_window_stay_as_they_started(make):
    start = torch.arange(9, dtype=DOUBLE).view(9, 1, 1) * 10
    seen = []

    def watch(report):
        end = int(seen[-1].finished[0]) + 3 if seen else 3
        seen.append(report)
        assert torch.equal(report.states[end:], start[end:])

    solve(make(window=3, max_sweeps=4), causal_map, start, torch.zeros(9), watch)
    assert len(seen) == 4


@pytest.mark.parametrize("make", SOLVERS)
def test_entering_states_take_the_last_value_inside_where_carried(make):
    start = torch.arange(9, dtype=DOUBLE).view(9, 1, 1) * 10
    end = 3

    def watch(report):
        nonlocal end
        new = min(int(report.finished[0]) + 3, 9)
        assert (report.states[end:new] == report.states[end - 1]).all()
        assert torch.equal(report.states[new:], start[new:])
        end = new

    solve(make(window=3, max_sweeps=4, carry=True), causal_map, start, torch.zeros(9), watch)
    assert end == 7


def test_proposals_are_asked_for_beyond_the_prefix_and_inside_the_window_only():
    class Spy(Picard):
        def propose(self, states, images, memory, active):
            asked.append(active[:, 0].tolist())
            return super().propose(states, images, memory, active)

    asked = []
    solve(Spy(window=3), causal_map, torch.full((6, 1, 1), 3.0, dtype=DOUBLE), torch.zeros(6))
    assert asked == [[n < k < n + 3 for k in range(6)] for n in range(5)]


@pytest.mark.parametrize("make", [Anderson, TriangularAnderson])
def test_a_state_that_just_entered_is_not_mixed(make):
    """State 3 enters in the second sweep: its first proposal is F(X), its second mixes two entries, not three."""
    solver = make(history_size=3)
    generator = torch.Generator().manual_seed(0)
    fed = [torch.randn(2, 4, 1, 5, dtype=DOUBLE, generator=generator) for _ in range(3)]
    fed[0][1, 3] = fed[0][0, 3]
    inside, narrow = torch.ones(4, 1, dtype=torch.bool), torch.tensor([[True], [True], [True], [False]])
    memory, fresh = solver.init(fed[0][0]), solver.init(fed[0][0])
    solver.propose(*fed[0], memory, narrow)
    first, _ = solver.propose(*fed[1], memory, inside)
    torch.testing.assert_close(first[3], fed[1][1, 3])
    assert not torch.allclose(first[2], fed[1][1, 2])
    second, _ = solver.propose(*fed[2], memory, inside)
    for states, images in fed[1:]:
        expected, _ = solver.propose(states, images, fresh, inside)
    torch.testing.assert_close(second[3], expected[3], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", SOLVERS)
def test_an_image_does_not_depend_on_its_batch(make):
    both, alone = (make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.0, steps=20, images=n) for n in (2, 1))
    together, single = (solve_equilibrium(c, make(window=6, carry=True), 0.1) for c in (both, alone))
    torch.testing.assert_close(together.value[:1], single.value, rtol=1e-12, atol=1e-12)
    assert together.sweeps[0] == single.sweeps[0]


def test_the_residual_is_that_of_the_last_state_inside():
    start = torch.full((9, 1, 1), 3.0, dtype=DOUBLE)
    solution = solve(Picard(window=3), causal_map, start, torch.zeros(9))
    image = causal_map(start, torch.tensor([0]), torch.tensor([3]))
    assert float(solution.residuals[0, 0]) == pytest.approx(float((image - start)[2].abs()))


def test_a_failing_image_fails_where_it_breaks():
    def broken(states, prefix, stop):
        images = causal_map(states, prefix, stop)
        images[4:, 1] = torch.nan
        return images

    solution = solve(Picard(window=3, carry=True), broken, torch.zeros(9, 2, 1, dtype=DOUBLE), torch.zeros(9))
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE)
    torch.testing.assert_close(solution.states[:, :1], serial_answer(9))
    assert solution.states.isfinite().all()
    assert (solution.states[7:, 1] == 0).all()


def direct_replay(chain, states, predictions, prefix, stop, order):
    """The equations of order k as they are defined, one image and one state after the other."""
    result = states[1:].clone()
    for b in range(states.shape[1]):
        for i in range(int(prefix[b]), int(stop[b])):
            begin = max(int(prefix[b]), i + 1 - order)
            x = states[begin].clone()
            for j in range(begin, i + 1):
                x = chain.step(j, x, predictions[j])
            result[i, b] = x[b]
    return result


@pytest.mark.parametrize("order", [1, 2, 4, 10, 50])
@pytest.mark.parametrize("name", ["sr", "inpaint", "deblur_reflect"])
def test_the_closed_form_is_a_direct_loop(name, order):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], 0.85)
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(11, 2, *SHAPE, dtype=DOUBLE, generator=generator)
    predictions = torch.randn(10, 2, *SHAPE, dtype=DOUBLE, generator=generator)
    for prefix, stop in (([0, 0], [10, 10]), ([2, 5], [6, 10]), ([10, 3], [10, 4])):
        ends = torch.tensor(prefix), torch.tensor(stop)
        closed = chain.step.replay(states, predictions, *ends, order)
        direct = direct_replay(chain, states, predictions, *ends, order)
        torch.testing.assert_close(closed, direct, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 4, 10, 50])
@pytest.mark.parametrize("make", SOLVERS)
def test_every_order_ends_in_the_serial_answer(make, order):
    chain = make_chain(SmoothDenoiser(), OPERATORS["inpaint"], 0.85, order=order)
    solution = solve_equilibrium(chain, make(), tolerance=0.0)
    torch.testing.assert_close(solution.states, serial_states(chain), rtol=1e-9, atol=1e-9)
    windowed = solve_equilibrium(chain, make(window=3), tolerance=0.0, preconditioner=BandedSecant())
    torch.testing.assert_close(windowed.states, serial_states(chain), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2, 5, 20])
@pytest.mark.parametrize("make", SOLVERS)
def test_every_order_meets_the_tolerance(make, order):
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85, steps=40, order=order)
    solution = solve_equilibrium(chain, make(), 0.5)
    difference = (solution.value - chain.sample()).square().mean((1, 2, 3)).sqrt() * 127.5
    assert (difference <= 2 * 0.5).all()


def test_an_order_of_all_steps_is_the_plain_sweep():
    plain, ordered = (make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85, order=k) for k in (None, 10))
    states, ends = plain.repeated_noise_start(), (torch.tensor([0, 4]), torch.tensor([10, 8]))
    torch.testing.assert_close(ordered.sweep(states, *ends), plain.sweep(states, *ends), rtol=1e-12, atol=1e-12)


def test_order_one_is_one_step_of_every_state():
    chain = make_chain(SmoothDenoiser(), OPERATORS["colorize"], 0.85, order=1)
    states = torch.randn(10, 2, *SHAPE, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    swept = chain.sweep(states, torch.tensor([0, 0]), torch.tensor([10, 10]))
    before = torch.cat([chain.initial_noise[None], states])
    for i, timestep in enumerate(chain.step.levels.timesteps.tolist()):
        e = chain.predict(before[i], torch.full((2,), timestep))
        torch.testing.assert_close(swept[i], chain.step(i, before[i], e), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", [1, 3])
def test_orders_and_windows_for_noisy_observations(order):
    noise = SeededNoise(SHAPE, [0, 1], 8, torch.device("cpu"), DOUBLE)
    denoiser = SmoothDenoiser()
    y = torch.rand(2, 3, 4, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    step = DDNMPlus(0.2).bind(OPERATORS["sr"], y, denoiser.schedule.levels(8), noise)
    chain = SamplingChain(denoiser, step, noise.initial, order=order)
    solution = solve_equilibrium(chain, Anderson(window=4), tolerance=0.0)
    torch.testing.assert_close(solution.states, serial_states(chain), rtol=1e-9, atol=1e-9)


def test_order_must_be_positive():
    with pytest.raises(OptionError, match="order is 0"):
        make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.0, order=0)
