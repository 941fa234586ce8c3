import pytest
import torch

from conftest import SmoothDenoiser, all_operators, causal_map, make_chain, serial_answer
from deqir.equilibrium import solve_equilibrium, state_tolerances
from deqir.errors import OptionError, ShapeError
from deqir.solvers import Anderson, Picard, Status, TriangularAnderson, solve
from deqir.solvers.history import mixing_weights

SOLVERS = [
    Picard(),
    Anderson(),
    Anderson(history_size=5, damping=0.7),
    Anderson(history_size=1),
    TriangularAnderson(),
    TriangularAnderson(history_size=5, damping=0.7, ridge=0.0),
]
EACH = [Picard(), Anderson(), TriangularAnderson()]
OPERATORS = all_operators()


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_exact_after_as_many_sweeps_as_states_from_any_start(solver):
    start = torch.randn(12, 4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 100
    solution = solve(solver, causal_map, start, torch.zeros(12))
    torch.testing.assert_close(solution.states, serial_answer(12).expand(12, 4, 1), rtol=0, atol=1e-14)
    assert solution.status == (Status.CONVERGED,) * 4
    assert solution.sweeps.tolist() == [12] * 4
    assert solution.evaluations.tolist() == [78] * 4
    assert solution.finished.shape == solution.residuals.shape == (12, 4)
    assert (solution.finished.diff(dim=0) >= 0).all()


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_every_sweep_makes_one_more_state_exact(solver):
    truth = serial_answer(9)
    seen = []

    def watch(report):
        count = int(report.finished[0])
        seen.append(count)
        torch.testing.assert_close(report.states[:count], truth[:count], rtol=0, atol=1e-14)

    solve(solver, causal_map, torch.full((9, 1, 1), 3.0, dtype=torch.float64), torch.zeros(9), watch)
    assert seen == list(range(1, 10))


@pytest.mark.parametrize("eta", [0.0, 0.85])
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("solver", EACH, ids=repr)
def test_parallel_equals_serial_to_rounding(solver, name, eta):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], eta)
    solution = solve_equilibrium(chain, solver, tolerance=0.0)
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", EACH, ids=repr)
def test_parallel_equals_serial_with_a_real_network(solver, network):
    chain = make_chain(network, OPERATORS["inpaint"], 0.85, steps=8)
    solution = solve_equilibrium(chain, solver, tolerance=0.0)
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", EACH, ids=repr)
@pytest.mark.parametrize("tolerance", [0.5, 0.05])
def test_the_tolerance_is_met_with_fewer_sweeps(solver, tolerance):
    chain = make_chain(SmoothDenoiser(), OPERATORS["inpaint"], 0.0, steps=30)
    solution = solve_equilibrium(chain, solver, tolerance)
    difference = (solution.value - chain.sample()).square().mean((1, 2, 3)).sqrt() * 127.5
    assert (difference <= 2 * tolerance).all()
    assert (solution.sweeps < 30).all()
    assert solution.status == (Status.CONVERGED,) * 2


@pytest.mark.parametrize("solver", EACH, ids=repr)
def test_an_image_does_not_depend_on_its_batch(solver):
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.0, steps=20)
    alone = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.0, steps=20, images=1)
    together, single = (solve_equilibrium(c, solver, 0.1) for c in (chain, alone))
    torch.testing.assert_close(together.value[:1], single.value, rtol=1e-12, atol=1e-12)
    assert together.sweeps[0] == single.sweeps[0]
    assert together.evaluations[0] == single.evaluations[0]


@pytest.mark.parametrize("solver", EACH, ids=repr)
def test_stopping_early_is_said(solver):
    solver = type(solver)(max_sweeps=2)
    solution = solve(solver, causal_map, torch.zeros(9, 1, 1, dtype=torch.float64), torch.zeros(9))
    assert solution.status == (Status.MAX_SWEEPS,)
    assert "raise max_sweeps" in solution.status[0].value
    torch.testing.assert_close(solution.states[:2], serial_answer(9)[:2])


@pytest.mark.parametrize("solver", EACH, ids=repr)
def test_one_image_failing_leaves_the_others_alone(solver):
    def broken(states, prefix, stop):
        images = causal_map(states, prefix, stop)
        images[4:, 1] = torch.nan
        return images

    solution = solve(solver, broken, torch.zeros(9, 2, 1, dtype=torch.float64), torch.zeros(9))
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE)
    torch.testing.assert_close(solution.states[:, :1], serial_answer(9))
    assert solution.sweeps.tolist() == [9, 5]


@pytest.mark.parametrize("solver", EACH, ids=repr)
def test_an_overflow_on_the_way_does_not_spoil_the_answer(solver):
    def explosive(states, prefix, stop):
        exact = serial_answer(9).float()
        before = torch.cat([torch.ones_like(states[:1]), states[:-1]])
        truth = torch.cat([torch.ones_like(states[:1]), exact[:-1].expand_as(states[1:])])
        images = exact + (before - truth) * 1e30
        index = torch.arange(9).view(-1, 1, 1)
        return torch.where(index >= prefix.view(1, -1, 1), images, states)

    solution = solve(solver, explosive, torch.zeros(9, 1, 1), torch.zeros(9))
    assert solution.status == (Status.CONVERGED,)
    torch.testing.assert_close(solution.states, serial_answer(9).float())


@pytest.mark.parametrize("solver", EACH, ids=repr)
def test_an_entry_that_has_not_heard_of_its_predecessor_is_not_final(solver):
    """x_{k+1} = x_k with x_0 = 5, from zeros: after one sweep only the first entry has moved at all."""

    def constant(states, prefix, stop):
        fresh = torch.cat([torch.full_like(states[:1], 5), states[:-1]])
        return torch.where((torch.arange(6).view(-1, 1) >= prefix)[..., None], fresh, states)

    solution = solve(solver, constant, torch.zeros(6, 1, 1, dtype=torch.float64), torch.full((6,), 1e-6))
    torch.testing.assert_close(solution.states, torch.full((6, 1, 1), 5.0, dtype=torch.float64))


def test_weights_of_degenerate_residuals():
    everything = torch.ones(1, 1, 3, dtype=torch.bool)
    equal = mixing_weights(torch.ones(1, 1, 3, 3, dtype=torch.float64), everything, 0.0, latest=2)
    assert equal.isfinite().all()
    torch.testing.assert_close(equal.sum(-1), torch.ones(1, 1, dtype=torch.float64))
    even = mixing_weights(torch.zeros(1, 1, 3, 3, dtype=torch.float64), everything, 1e-4, latest=2)
    torch.testing.assert_close(even, torch.full((1, 1, 3), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_weights_leave_out_what_does_not_count(bad):
    residuals = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gram = residuals @ residuals.T
    expected = mixing_weights(gram[1:, 1:], torch.tensor([True, True]), 1e-4, latest=1)
    left_out = mixing_weights(gram, torch.tensor([False, True, True]), 1e-4, latest=2)
    torch.testing.assert_close(left_out, torch.cat([torch.zeros(1), expected]))
    gram[0, :] = gram[:, 0] = bad
    torch.testing.assert_close(mixing_weights(gram, torch.tensor([True] * 3), 1e-4, latest=2), left_out)
    nothing = mixing_weights(gram, torch.tensor([True, False, False]), 1e-4, latest=2)
    assert nothing.tolist() == [0, 0, 1]


def test_weights_minimise_the_mixed_residual():
    residuals = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = mixing_weights(residuals @ residuals.T, torch.tensor([True] * 3), 0.0, latest=2)
    differences = residuals[:2] - residuals[2]
    free = torch.linalg.lstsq(differences.T, -residuals[2]).solution
    torch.testing.assert_close(weights, torch.cat([free, 1 - free.sum().view(1)]), rtol=1e-8, atol=1e-8)


def test_anderson_solves_a_linear_state_at_once():
    """Two iterates determine the fixed point of x -> 0.9 x + 1 in one dimension."""
    anderson = Anderson(history_size=2, ridge=0.0)
    x = torch.zeros(1, 1, 1, dtype=torch.float64)
    memory = anderson.init(x)
    for _ in range(2):
        x, memory = anderson.propose(x, 0.9 * x + 1, memory, torch.ones(1, 1, dtype=torch.bool))
    assert float(x) == pytest.approx(10, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Picard(max_sweeps=0), "max_sweeps is 0"),
        (lambda: Anderson(history_size=0), "history_size is 0"),
        (lambda: Anderson(damping=0.0), "damping is 0.0"),
        (lambda: Anderson(damping=1.1), "damping is 1.1"),
        (lambda: Anderson(ridge=-1.0), "ridge is -1.0"),
        (lambda: TriangularAnderson(history_size=0), "history_size is 0"),
        (lambda: Picard(window=0), "window is 0"),
        (lambda: state_tolerances(3, -1.0), "tolerance is -1.0"),
        (lambda: state_tolerances(3, float("nan")), "tolerance is nan"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_tolerances_of_another_length():
    with pytest.raises(ShapeError, match="do not fit"):
        solve(Picard(), causal_map, torch.zeros(3, 1, 1), torch.zeros(4))


def test_a_start_without_values_behind_state_and_image_is_refused():
    with pytest.raises(ShapeError, match="give states of shape"):
        solve(Picard(), causal_map, torch.zeros(3, 2), torch.zeros(3))


@pytest.mark.parametrize("position", range(5))
def test_the_first_broken_state_is_named_wherever_it_is(position):
    def breaks(states, prefix, stop):
        fresh = causal_map(states, prefix, stop)
        fresh[position, 1] = torch.nan
        return fresh

    solution = solve(Picard(), breaks, torch.zeros(5, 2, 1, dtype=torch.float64), torch.zeros(5))
    assert solution.broken.tolist() == [-1, position]
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE)
    torch.testing.assert_close(solution.states[:, :1], serial_answer(5))


def test_the_error_is_estimated_from_the_last_state():
    """All states creep towards zero, the last one by a factor of its own."""

    def creeping(states, prefix, stop):
        fresh = 0.9 * states
        fresh[-1] = 0.7 * states[-1]
        return torch.where((torch.arange(9).view(-1, 1) >= prefix)[..., None], fresh, states)

    start = torch.ones(9, 1, 1, dtype=torch.float64)
    solution = solve(Picard(max_sweeps=5), creeping, start, torch.zeros(9))
    assert solution.residuals[:, 0].tolist() == pytest.approx([0.3 * 0.7**k for k in range(5)])
    assert float(solution.errors) == pytest.approx(0.7**5)
