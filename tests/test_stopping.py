import pytest
import torch

from conftest import SmoothDenoiser, all_operators, make_chain
from deqir.equilibrium import solve_equilibrium
from deqir.operators import Inpainting, random_mask
from deqir.preconditioner import BandedSecant
from deqir.restoration import Restorer
from deqir.solvers import Anderson, Picard, Status, TriangularAnderson, solve
from deqir.solvers.stopping import ELSEWHERE, ELSEWHERE_MIXED, SLOWEST, estimate_error

OPERATORS = all_operators()
NONE = torch.zeros(1, dtype=torch.float64)


def series(*values):
    return [torch.tensor([value], dtype=torch.float64) for value in values]


@pytest.mark.parametrize("factor", [0.6, 0.7, 0.8])
def test_geometric_residuals_are_summed_exactly(factor):
    residuals = [factor**k for k in range(6)]
    rest = sum(factor**k for k in range(6, 400))
    assert float(estimate_error(series(*residuals), NONE)) == pytest.approx(rest)


def test_less_than_the_residual_is_never_promised():
    assert float(estimate_error(series(9, 1, 0.1, 0.01), NONE)) == 0.01


def test_the_slower_of_the_last_two_factors_counts_up_to_a_limit():
    assert float(estimate_error(series(9, 1.0, 0.8, 0.4), NONE)) == pytest.approx(0.4 * 0.8 / 0.2)
    assert float(estimate_error(series(9, 1.0, 0.4, 0.32), NONE)) == pytest.approx(0.32 * 0.8 / 0.2)
    assert float(estimate_error(series(9, 1.0, 2.0, 3.0), NONE)) == pytest.approx(3 * SLOWEST / (1 - SLOWEST))


def test_states_that_still_move_count():
    still = series(9, 1, 0.1, 0.01)
    assert float(estimate_error(still, torch.tensor([5.0]))) == pytest.approx(ELSEWHERE * 5)
    assert float(estimate_error(still, torch.tensor([5.0]), mixed=True)) == pytest.approx(ELSEWHERE_MIXED * 5)
    assert Anderson.mixes and TriangularAnderson.mixes and not Picard.mixes


@pytest.mark.parametrize("values", [(), (1.0,), (1.0, 0.1), (1.0, float("nan"), 0.1), (1.0, float("inf"), 0.1)])
def test_nothing_is_said_without_three_sound_residuals(values):
    assert estimate_error(series(*values), NONE).tolist() == [float("inf")]


def test_one_image_says_nothing_of_another():
    residuals = [torch.tensor([value, value], dtype=torch.float64) for value in (9, 1, 0.1, 0.01)]
    residuals[2][1] = torch.nan
    assert estimate_error(residuals, torch.zeros(2)).tolist() == [0.01, float("inf")]


@pytest.mark.parametrize("eta", [0.0, 0.85])
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("preconditioner", [None, BandedSecant()], ids=["plain", "preconditioned"])
def test_the_estimate_holds_and_saves_sweeps(preconditioner, name, eta):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], eta, steps=60)
    solution = solve_equilibrium(chain, Picard(), 0.5, preconditioner=preconditioner)
    difference = (solution.value - chain.sample()).square().mean((1, 2, 3)).sqrt()
    assert (difference * 127.5 <= 0.5).all()
    assert (difference <= solution.errors + 1e-9).all()
    assert (solution.sweeps < 60).all()


def test_an_exact_answer_has_no_error_and_an_unknown_one_an_infinite_one():
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85)
    assert solve_equilibrium(chain, Picard(), 0.0).errors.tolist() == [0, 0]
    cut = solve_equilibrium(chain, Picard(max_sweeps=2), 0.0)
    assert cut.errors.tolist() == [float("inf")] * 2


def test_a_horizon_postpones_states_and_never_stalls():
    """States beyond the horizon are not evaluated; at least one more becomes exact in every sweep."""

    def causal_map(states, prefix, stop):
        before = torch.cat([torch.ones_like(states[:1]), states[:-1]])
        index = torch.arange(len(states)).view(-1, 1, 1)
        return torch.where((index >= prefix.view(1, -1, 1)) & (index < stop.view(1, -1, 1)), before.cos(), states)

    start = torch.zeros(6, 1, 1, dtype=torch.float64)
    near = solve(Picard(), causal_map, start, torch.zeros(6), horizon=lambda prefix: prefix * 0)
    assert near.sweeps.tolist() == near.evaluations.tolist() == [6]
    two = solve(Picard(), causal_map, start, torch.zeros(6), horizon=lambda prefix: prefix + 2)
    assert two.evaluations.tolist() == [11]
    torch.testing.assert_close(near.states, two.states)


def test_states_that_moved_far_are_left_out_of_the_next_sweep():
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85, steps=40)
    eager, patient = (BandedSecant(worth=worth) for worth in (1e-12, 0.1))
    counts = [solve_equilibrium(chain, Picard(), 0.1, preconditioner=p) for p in (eager, patient)]
    assert (counts[1].evaluations < counts[0].evaluations).all()
    torch.testing.assert_close(counts[1].value, chain.sample(), rtol=0, atol=0.1 / 127.5 * 20)


@pytest.mark.parametrize("solver", [Picard(), Anderson(), TriangularAnderson()], ids=repr)
@pytest.mark.parametrize(("size", "steps", "spacing", "seed"), [(6, 23, "trailing", 388), (16, 26, "linspace", 115)])
def test_a_last_state_that_stands_still_by_chance_does_not_end_the_solve(solver, size, steps, spacing, seed):
    """The triangular solver of a linear network holds the last state of these for a sweep; others still move."""
    generator = torch.Generator().manual_seed(seed)
    operator = Inpainting(random_mask(size, size, 0.5, generator))
    y = operator.forward(torch.rand(1, 3, size, size, dtype=torch.float64, generator=generator))
    options = {"steps": steps, "eta": 0.0, "spacing": spacing, "dtype": "float64"}
    found, exact = (
        Restorer(SmoothDenoiser(bend=0.0), operator, solver=name, **options).restore(y, seed)
        for name in (solver, "serial")
    )
    assert found.status == (Status.CONVERGED,)
    assert found.stats.sweeps[0] < steps
    assert float((found.image - exact.image).square().mean().sqrt()) * 255 <= 0.5


@pytest.mark.parametrize("solver", ["picard", "anderson", "triangular", "preconditioned"])
def test_what_is_called_converged_is_not_estimated_beyond_the_tolerance(solver):
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        truth = torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=generator)
        options = {"steps": 8 + seed, "eta": 0.85 * (seed % 2), "solver": solver, "dtype": "float64", "device": "cpu"}
        denoiser = SmoothDenoiser(bend=(0.0, 0.2, 0.5)[seed % 3])
        operator = OPERATORS["sr"]
        result = Restorer(denoiser, operator, tolerance=0.5, **options).restore(operator.forward(truth), seed)
        assert result.status == (Status.CONVERGED,)
        assert float(result.estimated_error[0]) <= 0.5


def test_an_end_by_the_residuals_alone_reports_no_more_than_the_tolerance():
    """The last residual grows again from nearly nothing, which no extrapolation trusts, yet all are within theirs."""
    moves = iter([1.0, 1e-9, 1e-3, 0.4])

    def causal_map(states, prefix, stop):
        return states + next(moves)

    start, tolerances = torch.zeros(9, 1, 1, dtype=torch.float64), torch.full((9,), 0.5, dtype=torch.float64)
    tolerances[0], tolerances[-1] = 0.3, 0.5
    solution = solve(Picard(), causal_map, start, tolerances)
    assert solution.status == (Status.CONVERGED,)
    assert float(solution.errors[0]) <= 0.5
