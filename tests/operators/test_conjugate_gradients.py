import pytest
import torch
from torch import Tensor

from deqir.errors import OptionError
from deqir.operators import LinearOperator
from deqir.operators.conjugate_gradients import solve_normal_equations

DOUBLE = torch.float64
SHAPE = (2, 3, 4)


class Matrix(LinearOperator):
    """A dense matrix (m, 24); counts the products with it."""

    def __init__(self, matrix: Tensor):
        self.matrix, self.products = matrix, 0

    def forward(self, x):
        self.products += 1
        return x.flatten(1) @ self.matrix.T

    def adjoint(self, y):
        return (y @ self.matrix).view(-1, *SHAPE)

    def pinv(self, y):
        return (y @ torch.linalg.pinv(self.matrix).T).view(-1, *SHAPE)

    def image_shape(self, observation_shape):
        return SHAPE


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shift", [0.0, 0.3])
@pytest.mark.parametrize("rows", [7, 24, 30])
def test_solves_the_normal_equations(rows, shift):
    operator = Matrix(random(rows, 24))
    b = operator.adjoint(random(5, rows, seed=1))
    x = solve_normal_equations(operator, b, shift, tolerance=1e-12, max_iterations=500)
    inverse = torch.linalg.pinv(operator.matrix.T @ operator.matrix + shift * torch.eye(24, dtype=DOUBLE), rtol=1e-9)
    torch.testing.assert_close(x.flatten(1), b.flatten(1) @ inverse, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
def test_every_image_meets_the_tolerance_in_its_own_scale(tolerance):
    operator = Matrix(random(30, 24))
    b = random(3, *SHAPE, seed=1) * torch.tensor([1.0, 1e-8, 0.0]).view(-1, 1, 1, 1)
    x = solve_normal_equations(operator, b, 0.1, tolerance)
    residual = b - operator.adjoint(operator.forward(x)) - 0.1 * x
    assert (residual.flatten(1).norm(dim=1) <= 1.01 * tolerance * b.flatten(1).norm(dim=1)).all()
    alone = solve_normal_equations(operator, b[:1], 0.1, tolerance)
    torch.testing.assert_close(x[:1], alone, rtol=0, atol=tolerance)


@torch.no_grad()
def test_it_stops_when_asked_and_when_done():
    operator = Matrix(random(30, 24))
    b = random(1, *SHAPE, seed=1)
    solve_normal_equations(operator, b, tolerance=1e-12, max_iterations=5)
    assert operator.products == 5
    identity = Matrix(torch.eye(24, dtype=DOUBLE))
    solve_normal_equations(identity, b, 0.5)
    assert identity.products == 1


@torch.no_grad()
def test_single_precision_does_not_iterate_on_rounding_errors():
    operator = Matrix(random(30, 24).float())
    solve_normal_equations(operator, random(1, *SHAPE, seed=1).float(), 1.0, tolerance=1e-30, max_iterations=1000)
    assert operator.products < 100


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_gradients_are_those_of_the_exact_solution(shift):
    matrix = random(7, 24).requires_grad_()
    y = random(2, 7, seed=1).requires_grad_()

    def solution(matrix, y):
        operator = Matrix(matrix)
        return solve_normal_equations(operator, operator.adjoint(y), shift, 1e-13, 500)

    def exact(matrix, y):
        inverse = torch.linalg.inv(matrix @ matrix.T + shift * torch.eye(7, dtype=DOUBLE))
        return (y @ inverse @ matrix).view(-1, *SHAPE)

    weights = random(2, *SHAPE, seed=3)
    found, expected = (torch.autograd.grad((weights * f(matrix, y)).sum(), (matrix, y)) for f in (solution, exact))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_what_is_not_finite_stays_so():
    x = solve_normal_equations(Matrix(random(7, 24)), torch.full((1, *SHAPE), torch.nan, dtype=DOUBLE), 1.0)
    assert x.isnan().all()


@pytest.mark.parametrize("settings", [{"shift": -1.0}, {"tolerance": 0.0}, {"max_iterations": 0}])
def test_settings_out_of_range(settings):
    with pytest.raises(OptionError):
        solve_normal_equations(Matrix(random(7, 24)), random(1, *SHAPE), **settings)


def test_a_single_iteration_may_be_asked_for():
    operator, b = Matrix(random(30, 24)), random(1, *SHAPE, seed=1)
    x = solve_normal_equations(operator, b, 0.5, max_iterations=1)
    torch.testing.assert_close(x * (b * b).sum(), b * (x * b).sum())  # one step, along b
    assert (x * b).sum() > 0
