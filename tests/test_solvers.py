import pytest
import torch

from conftest import SmoothDenoiser, all_operators, make_chain
from deqir.equilibrium import solve_equilibrium, state_tolerances
from deqir.errors import OptionError, ShapeError
from deqir.solvers import Anderson, Picard, Status, solve

SOLVERS = [Picard(), Anderson(), Anderson(history_size=5, damping=0.7), Anderson(history_size=1)]
OPERATORS = all_operators()


def causal_map(states, prefix):
    """x_{k+1} = cos(x_k + x_{k-1} / 2), a nonlinear causal map of order two with x_0 = 1."""
    before = torch.cat([torch.ones_like(states[:1]), states[:-1]])
    twice = torch.cat([torch.ones_like(states[:1]), before[:-1]])
    fresh = torch.cos(before + twice / 2)
    index = torch.arange(len(states)).view(-1, 1, 1)
    return torch.where(index >= prefix.view(1, -1, 1), fresh, states)


def serial_answer(length):
    states = torch.zeros(length, 1, 1, dtype=torch.float64)
    for k in range(length):
        states[k] = causal_map(states, torch.zeros(1, dtype=torch.long))[k]
    return states


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
@pytest.mark.parametrize("solver", [Picard(), Anderson()], ids=repr)
def test_parallel_equals_serial_to_rounding(solver, name, eta):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], eta)
    solution = solve_equilibrium(chain, solver, tolerance=0.0)
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("solver", [Picard(), Anderson()], ids=repr)
def test_parallel_equals_serial_with_a_real_network(solver, network):
    chain = make_chain(network, OPERATORS["inpaint"], 0.85, steps=8)
    solution = solve_equilibrium(chain, solver, tolerance=0.0)
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", [Picard(), Anderson()], ids=repr)
@pytest.mark.parametrize("tolerance", [0.5, 0.05])
def test_the_tolerance_is_met_with_fewer_sweeps(solver, tolerance):
    chain = make_chain(SmoothDenoiser(), OPERATORS["inpaint"], 0.0, steps=30)
    solution = solve_equilibrium(chain, solver, tolerance)
    difference = (solution.value - chain.sample()).square().mean((1, 2, 3)).sqrt() * 127.5
    assert (difference <= 2 * tolerance).all()
    assert (solution.sweeps < 30).all()
    assert solution.status == (Status.CONVERGED,) * 2


def test_an_image_does_not_depend_on_its_batch():
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.0, steps=20)
    alone = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.0, steps=20, images=1)
    together, single = (solve_equilibrium(c, Anderson(), 0.1) for c in (chain, alone))
    torch.testing.assert_close(together.value[:1], single.value, rtol=1e-12, atol=1e-12)
    assert together.sweeps[0] == single.sweeps[0]
    assert together.evaluations[0] == single.evaluations[0]


@pytest.mark.parametrize("solver", [Picard(), Anderson()], ids=repr)
def test_stopping_early_is_said(solver):
    solver = type(solver)(max_sweeps=2)
    solution = solve(solver, causal_map, torch.zeros(9, 1, 1, dtype=torch.float64), torch.zeros(9))
    assert solution.status == (Status.MAX_SWEEPS,)
    assert "raise max_sweeps" in solution.status[0].value
    torch.testing.assert_close(solution.states[:2], serial_answer(9)[:2])


def test_one_image_failing_leaves_the_others_alone():
    def broken(states, prefix):
        images = causal_map(states, prefix)
        images[4:, 1] = torch.nan
        return images

    solution = solve(Anderson(), broken, torch.zeros(9, 2, 1, dtype=torch.float64), torch.zeros(9))
    assert solution.status == (Status.CONVERGED, Status.NON_FINITE)
    torch.testing.assert_close(solution.states[:, :1], serial_answer(9))
    assert solution.sweeps.tolist() == [9, 5]


@pytest.mark.parametrize("solver", [Picard(), Anderson()], ids=repr)
def test_an_overflow_on_the_way_does_not_spoil_the_answer(solver):
    def explosive(states, prefix):
        exact = serial_answer(9).float()
        before = torch.cat([torch.ones_like(states[:1]), states[:-1]])
        truth = torch.cat([torch.ones_like(states[:1]), exact[:-1].expand_as(states[1:])])
        images = exact + (before - truth) * 1e30
        index = torch.arange(9).view(-1, 1, 1)
        return torch.where(index >= prefix.view(1, -1, 1), images, states)

    solution = solve(solver, explosive, torch.zeros(9, 1, 1), torch.zeros(9))
    assert solution.status == (Status.CONVERGED,)
    torch.testing.assert_close(solution.states, serial_answer(9).float())


def test_identical_residuals_give_even_finite_weights():
    weights = Anderson(ridge=0.0).weights(torch.ones(1, 1, 3, 3, dtype=torch.float64))
    assert weights.isfinite().all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 1, dtype=torch.float64))
    even = Anderson().weights(torch.zeros(1, 1, 3, 3, dtype=torch.float64))
    torch.testing.assert_close(even, torch.full((1, 1, 3), 1 / 3, dtype=torch.float64))


def test_anderson_solves_a_linear_state_at_once():
    """Two iterates determine the fixed point of x -> 0.9 x + 1 in one dimension."""
    anderson = Anderson(history_size=2, ridge=0.0)
    x = torch.zeros(1, 1, 1, dtype=torch.float64)
    memory = anderson.init(x)
    for _ in range(2):
        x, memory = anderson.propose(x, 0.9 * x + 1, memory)
    assert float(x) == pytest.approx(10, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Picard(max_sweeps=0), "max_sweeps is 0"),
        (lambda: Anderson(history_size=0), "history_size is 0"),
        (lambda: Anderson(damping=0.0), "damping is 0.0"),
        (lambda: Anderson(ridge=-1.0), "ridge is -1.0"),
        (lambda: state_tolerances(3, -1.0), "tolerance is -1.0"),
        (lambda: state_tolerances(3, float("nan")), "tolerance is nan"),
    ],
)
def test_options_out_of_range(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_tolerances_of_another_length():
    with pytest.raises(ShapeError, match="share S"):
        solve(Picard(), causal_map, torch.zeros(3, 1, 1), torch.zeros(4))
