"""The iterative pseudo-inverse against exact ones, to its stated tolerance."""

import pytest
import torch

from deqir.errors import ConvergenceWarning, OptionError
from deqir.operators import LeastSquares

SHAPES = {"wide": (12, 20, 12), "tall": (20, 12, 12), "deficient": (16, 18, 9)}


def dense(name, condition, seed=0):
    """A (m, n) of a given rank and condition number, and its pseudo-inverse, from chosen singular vectors."""
    m, n, rank = SHAPES[name]
    generator = torch.Generator().manual_seed(seed)
    U, V = (torch.linalg.qr(torch.randn(size, rank, dtype=torch.float64, generator=generator)).Q for size in (m, n))
    s = torch.logspace(0, -torch.tensor(float(condition)).log10(), rank, dtype=torch.float64)
    return U * s @ V.T, V / s @ U.T


def solve(A, y, **options):
    A = A.to(y.dtype)
    return LeastSquares(**options).solve(lambda x: x @ A.T, lambda z: z @ A, y)


def draw(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("condition", [2, 100, 10_000])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-8, 1e-12])
def test_penrose_identities_hold_to_the_tolerance_times_the_condition_number(name, condition, tolerance):
    A, exact = dense(name, condition)
    bound = tolerance * condition

    def pinv(matrix):
        return solve(A, matrix.T.contiguous(), tolerance=tolerance).x.T

    P, PA, norm = pinv(torch.eye(len(A), dtype=torch.float64)), pinv(A), torch.linalg.matrix_norm
    assert norm(P - exact, 2) <= bound * norm(exact, 2)
    assert (A @ PA - A).norm(dim=0).div(A.norm(dim=0)).max() <= tolerance
    assert norm(pinv(A @ P) - P, 2) <= 2 * bound * norm(P, 2)
    assert norm(A @ P - (A @ P).T, 2) <= 2 * bound
    assert norm(PA - PA.T, 2) <= 2 * bound


@pytest.mark.parametrize("name", SHAPES)
def test_float32_is_held_to_its_rounding(name):
    A, exact = dense(name, 10)
    y = draw(3, len(A))
    result = solve(A, y.float(), tolerance=1e-12)
    assert result.x.dtype == torch.float32 and bool(result.converged.all())
    torch.testing.assert_close(result.x.double(), y @ exact.T, rtol=0, atol=4e-5 * float((y @ exact.T).norm()))


def test_half_precision_is_solved_in_float32():
    A, exact = dense("wide", 10)
    y = draw(2, len(A)).half()
    x = LeastSquares().solve(lambda x: x @ A.T.to(x.dtype), lambda z: z @ A.to(z.dtype), y).x
    assert x.dtype == torch.float16
    torch.testing.assert_close(x.double(), y.double() @ exact.T, rtol=2e-3, atol=2e-3)


def test_the_solution_has_the_least_norm():
    A, _ = dense("deficient", 100)
    x = solve(A, draw(1, 18) @ A.T, tolerance=1e-12).x
    null = torch.linalg.svd(A).Vh[9:]
    assert (x @ null.T).abs().max() < 1e-12 * x.norm()


def test_images_of_a_batch_do_not_influence_each_other():
    A, _ = dense("tall", 1000)
    easy = torch.linalg.svd(A).U[:, 0]  # one iteration
    y = torch.stack([draw(20), easy, torch.zeros(20).double(), 1e12 * draw(20, seed=2), 1e-30 * draw(20, seed=3)])
    together = solve(A, y, tolerance=1e-12)
    alone = [solve(A, row[None], tolerance=1e-12) for row in y]
    assert together.iterations[1] == 1 and together.iterations[2] == 0
    for row, one in zip(together.x, alone, strict=True):
        torch.testing.assert_close(row, one.x[0], rtol=1e-8, atol=0)
    assert torch.equal(together.x[2], torch.zeros(12).double())


def test_the_solution_scales_with_the_observation():
    A, _ = dense("wide", 10)
    y = draw(1, 12).float()
    torch.testing.assert_close(solve(A, y * 2.0**100).x, solve(A, y).x * 2.0**100, rtol=1e-6, atol=0)
    torch.testing.assert_close(solve(A, y * 2.0**-100).x, solve(A, y).x * 2.0**-100, rtol=1e-6, atol=0)


def test_an_observation_that_is_not_finite_spoils_its_own_image_alone():
    A, exact = dense("wide", 10)
    y = draw(3, 12)
    y[1, 4] = float("nan")
    x = solve(A, y, tolerance=1e-10).x
    assert bool(x[1].isnan().all())
    torch.testing.assert_close(x[[0, 2]], y[[0, 2]] @ exact.T, rtol=1e-8, atol=1e-8)


def test_an_observation_outside_the_range_has_the_solution_zero():
    A, _ = dense("tall", 10)
    y = torch.linalg.svd(A).U[:, 12:].T
    assert solve(A, y).x.abs().max() < 1e-5


def test_the_zero_operator_gives_zero():
    x = LeastSquares().solve(lambda x: x[:, :2] * 0, lambda y: torch.cat([y, y], 1) * 0, torch.ones(1, 2)).x
    assert torch.equal(x, torch.zeros(1, 4))


def test_a_missed_tolerance_is_said():
    A, _ = dense("tall", 10_000)
    y = torch.stack([draw(20), torch.zeros(20).double()])
    with pytest.warns(ConvergenceWarning, match=r"missed its tolerance 1e-08 for 1 of 2 images within 3 iterations"):
        result = solve(A, y, tolerance=1e-8, max_iterations=3)
    assert result.converged.tolist() == [False, True]
    assert result.iterations.tolist() == [3, 0]
    assert bool(result.x.isfinite().all())


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"tolerance": 1.0}, {"max_iterations": 0}])
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(OptionError, match="give"):
        LeastSquares(**options)
