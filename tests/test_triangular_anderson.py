import pytest
import torch

from conftest import SmoothDenoiser, all_operators, causal_map, make_chain, serial_answer
from deqir.equilibrium import solve_equilibrium
from deqir.preconditioner import BandedSecant
from deqir.solvers import Anderson, Picard, TriangularAnderson, solve
from deqir.solvers.history import mixing_weights

OPERATORS = all_operators()
DOUBLE = torch.float64


def random_run(solver, sweeps, active, seed=0):
    """Proposals for random iterates and images (S, B, 4), and what was fed."""
    generator = torch.Generator().manual_seed(seed)
    fed = [torch.randn(2, *active.shape, 4, dtype=DOUBLE, generator=generator) for _ in range(sweeps)]
    memory = solver.init(fed[0][0])
    for states, images in fed:
        proposed, memory = solver.propose(states, images, memory, active)
    return proposed, fed


def test_the_weights_are_least_squares_over_the_states_up_to_k():
    """Against a dense least squares for every state, the first two states being final."""
    active = torch.ones(6, 2, dtype=torch.bool)
    active[:2, 0] = False
    proposed, fed = random_run(TriangularAnderson(ridge=0.0), 3, active)
    for b, first in ((0, 2), (1, 0)):
        for k in range(first, 6):
            residuals = torch.stack([(f - x)[first : k + 1, b].flatten() for x, f in fed])
            free = torch.linalg.lstsq((residuals[:2] - residuals[2]).T, -residuals[2]).solution
            weights = torch.cat([free, 1 - free.sum().view(1)])
            expected = sum(w * f[k, b] for w, (_, f) in zip(weights, fed, strict=True))
            torch.testing.assert_close(proposed[k, b], expected, rtol=1e-7, atol=1e-7)


def test_the_first_state_of_all_is_mixed_as_anderson_mixes_it():
    active = torch.ones(6, 2, dtype=torch.bool)
    triangular, _ = random_run(TriangularAnderson(), 5, active)
    single, _ = random_run(Anderson(), 5, active)
    torch.testing.assert_close(triangular[0], single[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(triangular[1], single[1])


def test_no_state_depends_on_a_later_one():
    active = torch.ones(6, 1, dtype=torch.bool)
    whole, _ = random_run(TriangularAnderson(), 4, active)
    generator = torch.Generator().manual_seed(0)
    fed = [torch.randn(2, 6, 1, 4, dtype=DOUBLE, generator=generator) for _ in range(4)]
    solver = TriangularAnderson()
    memory = solver.init(fed[0][0])
    for states, images in fed:
        states[3:], images[3:] = 7.0, torch.rand(3, 1, 4, generator=generator).double()
        proposed, memory = solver.propose(states, images, memory, active)
    assert torch.equal(proposed[:3], whole[:3])


def test_a_state_that_was_not_finite_leaves_its_entry_out_for_the_states_after_it():
    """State 2 failed in the first of three sweeps: states 2 to 5 mix the other two entries only."""
    solver = TriangularAnderson()
    everywhere = torch.ones(6, 1, dtype=torch.bool)
    broken = everywhere.clone()
    broken[2] = False
    generator = torch.Generator().manual_seed(4)
    fed = [torch.randn(2, 6, 1, 4, dtype=DOUBLE, generator=generator) for _ in range(3)]
    memory = solver.init(fed[0][0])
    for n, (states, images) in enumerate(fed):
        proposed, memory = solver.propose(states, images, memory, broken if n == 0 else everywhere)
    later = solver.init(fed[0][0])
    for states, images in fed[1:]:
        expected, later = solver.propose(states, images, later, everywhere)
    torch.testing.assert_close(proposed[2:], expected[2:], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(proposed[:2], expected[:2])


def test_one_exploded_residual_falls_back_to_the_entries_that_are_left():
    solver = TriangularAnderson(history_size=2)
    active = torch.ones(4, 1, dtype=torch.bool)
    memory = solver.init(torch.zeros(4, 1, 3))
    explosion = torch.full((4, 1, 3), 1e25)
    explosion[:2] = 1.0
    solver.propose(torch.zeros(4, 1, 3), explosion, memory, active)
    assert not memory.gram.isfinite().all()
    images = torch.full((4, 1, 3), 0.5)
    proposed, _ = solver.propose(torch.zeros(4, 1, 3), images, memory, active)
    assert proposed.isfinite().all()
    assert torch.equal(proposed[2:], images[2:])
    assert not torch.equal(proposed[:2], images[:2])


@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_singular_sums_stay_finite(ridge):
    repeated = torch.ones(5, 2, 3, 3, dtype=DOUBLE).cumsum(0) * 1e-30
    weights = mixing_weights(repeated, torch.ones(5, 2, 3, dtype=torch.bool), ridge, latest=1)
    assert weights.isfinite().all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, 2, dtype=DOUBLE))


@pytest.mark.parametrize("eta", [0.0, 0.85])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_sweep_makes_one_more_state_of_a_chain_exact(name, eta):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], eta, steps=8)
    truth = []
    chain.sample(lambda done, state: truth.append(state))
    seen = []

    def watch(report):
        seen.append(int(report.finished.min()))
        torch.testing.assert_close(report.states[: seen[-1]], torch.stack(truth)[: seen[-1]], rtol=1e-9, atol=1e-9)

    solution = solve_equilibrium(chain, TriangularAnderson(), tolerance=0.0, progress=watch)
    assert all(done >= sweep for sweep, done in enumerate(seen, 1))
    torch.testing.assert_close(solution.states, torch.stack(truth), rtol=1e-9, atol=1e-9)


def test_on_top_of_the_preconditioned_sweep():
    chain = make_chain(SmoothDenoiser(), OPERATORS["deblur"], 0.85)
    solution = solve_equilibrium(chain, TriangularAnderson(), tolerance=0.0, preconditioner=BandedSecant())
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("first", [TriangularAnderson(), TriangularAnderson(window=5, carry=True)], ids=repr)
def test_an_image_does_not_depend_on_the_others_in_its_batch(first):
    """Image 0 next to one that is solved already, and next to one that explodes."""
    start = torch.full((9, 3, 1), 3.0, dtype=DOUBLE)
    start[:, 1] = serial_answer(9)[:, 0]
    start[:, 2] = 1e200
    together = solve(first, causal_map, start, torch.full((9,), 1e-6))
    alone = solve(first, causal_map, start[:, :1], torch.full((9,), 1e-6))
    torch.testing.assert_close(together.states[:, :1], alone.states, rtol=1e-12, atol=1e-12)
    assert together.sweeps[0] == alone.sweeps[0]
    assert together.evaluations[0] == alone.evaluations[0]
    assert together.sweeps[1] < together.sweeps[0]


def test_it_needs_fewer_sweeps_than_picard_on_a_noisy_chain():
    chain = make_chain(SmoothDenoiser(), OPERATORS["inpaint"], 0.85, steps=50)
    picard, triangular = (solve_equilibrium(chain, s, 0.5) for s in (Picard(), TriangularAnderson()))
    assert (triangular.sweeps < picard.sweeps).all()
    assert (triangular.evaluations < picard.evaluations).all()
