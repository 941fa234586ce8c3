"""Operators from a user's function: adjoint by autograd, pseudo-inverse by least squares, and their derivatives."""

import pytest
import torch

from deqir.errors import OptionError, ShapeError
from deqir.operators import DecomposableOperator, from_function

SHAPE = (2, 3, 4)
GENERATOR = torch.Generator().manual_seed(0)
MIX = torch.randn(10, 24, dtype=torch.float64, generator=GENERATOR) @ torch.diag(torch.linspace(1, 0.2, 24).double())


def forward(x):
    return (x.flatten(1) @ MIX.T.to(x.dtype)).reshape(-1, 2, 5)


def images(count=2):
    return torch.randn(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def operator():
    return from_function(forward, SHAPE, tolerance=1e-12)


def test_autograd_gives_the_transpose_and_least_squares_the_pseudo_inverse(operator):
    y = forward(images())
    torch.testing.assert_close(operator.as_matrix(SHAPE), MIX)
    torch.testing.assert_close(operator.adjoint(y), (y.flatten(1) @ MIX).reshape(-1, *SHAPE))
    exact = (y.flatten(1) @ torch.linalg.pinv(MIX).T).reshape(-1, *SHAPE)
    torch.testing.assert_close(operator.pinv(y), exact, rtol=1e-9, atol=1e-9)
    assert not operator.pinv_is_exact and not isinstance(operator, DecomposableOperator)


def test_a_given_adjoint_is_used(operator):
    calls = []

    def adjoint(y):
        calls.append(len(y))
        return (y.flatten(1) @ MIX.to(y.dtype)).reshape(-1, *SHAPE)

    given = from_function(forward, SHAPE, adjoint, tolerance=1e-12)
    y = forward(images())
    torch.testing.assert_close(given.adjoint(y), operator.adjoint(y))
    assert calls == [2]


def test_the_adjoint_works_in_every_gradient_mode(operator):
    y = forward(images())
    expected = operator.adjoint(y)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(operator.adjoint(y * 1), expected)
            torch.testing.assert_close(operator.pinv(y * 1), operator.pinv(y), rtol=1e-9, atol=1e-9)
    assert not operator.adjoint(y).requires_grad


@pytest.mark.parametrize("name", ["forward", "adjoint", "pinv", "range_projection"])
def test_derivatives_by_the_argument(operator, name):
    x = images()
    argument = (x if name in ("forward", "range_projection") else forward(x)).requires_grad_()
    assert torch.autograd.gradcheck(getattr(operator, name), (argument,))


@pytest.mark.parametrize("name", ["forward", "adjoint", "pinv", "range_projection"])
@pytest.mark.parametrize("rows", [3, 9])
def test_derivatives_by_what_the_function_holds(name, rows):
    """With 9 rows of 6 unknowns the residual counts, with 3 the null space does."""
    generator = torch.Generator().manual_seed(5)
    matrix = torch.randn(rows, 6, dtype=torch.float64, generator=generator).requires_grad_()
    x, y = (torch.randn(2, *shape, dtype=torch.float64, generator=generator) for shape in ((1, 2, 3), (rows,)))
    argument = x if name in ("forward", "range_projection") else y

    def result(matrix):
        operator = from_function(lambda x: x.flatten(1) @ matrix.T.to(x.dtype), (1, 2, 3), tolerance=1e-13)
        return getattr(operator, name)(argument)

    assert torch.autograd.gradcheck(result, (matrix,))


def test_second_derivatives_of_the_pseudo_inverse_are_refused(operator):
    y = forward(images()).requires_grad_()
    (gradient,) = torch.autograd.grad(operator.pinv(y).square().sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_parameters_per_image_are_repeated():
    masks = (torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(1)) > 0.5).double()

    def masked(x):
        return x * masks.to(x.dtype)[: len(x)] if len(x) <= 2 else pytest.fail("more images than masks")

    operator = from_function(masked, SHAPE, per_image=True).repeated(3)
    x = images(2)
    torch.testing.assert_close(operator.forward(x.repeat(3, 1, 1, 1)), (x * masks).repeat(3, 1, 1, 1))
    torch.testing.assert_close(operator.pinv(x.repeat(3, 1, 1, 1)), (x * masks).repeat(3, 1, 1, 1))
    assert from_function(forward, SHAPE).repeated(3).copies == 1


def test_one_channel_serves_every_channel():
    single = from_function(lambda x: x.cumsum(-1)[..., 1:], (1, 3, 4), tolerance=1e-12)
    colour = single.at((3, 3, 4)).repeated(2)
    x = torch.randn(4, 3, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = colour.forward(x)
    assert y.shape == (4, 3, 3, 3) and colour.image_shape((3, 3, 3)) == (3, 3, 4)
    torch.testing.assert_close(y, x.cumsum(-1)[..., 1:])
    for function in ("adjoint", "pinv"):
        by_channel = [getattr(single, function)(y[:, c : c + 1]) for c in range(3)]
        torch.testing.assert_close(getattr(colour, function)(y), torch.cat(by_channel, 1), rtol=1e-9, atol=1e-9)
    assert single.at((3, 3, 4)).at((1, 3, 4)).forward(x[:, :1]).shape == (4, 1, 3, 3)


def test_what_does_not_fit_is_said(operator):
    with pytest.raises(ShapeError, match=r"made for \(2, 3, 4\)"):
        operator.forward(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ShapeError, match=r"give one of \(2, 5\)"):
        operator.pinv(torch.zeros(1, 5))
    with pytest.raises(ShapeError, match=r"made for \(2, 3, 4\), make one for that shape"):
        operator.at((2, 4, 4))
    with pytest.raises(ShapeError, match=r"returned shape \(1, 2\); return \(batch, \*\(2, 3, 4\)\)"):
        from_function(forward, SHAPE, lambda y: y[:, 0, :2]).adjoint(torch.zeros(1, 2, 5))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x @ x.new_zeros(7), "failed on a float32 image batch of shape"),
        (lambda x: x.sum(), "returned torch.float32 of shape"),
        (lambda x: torch.fft.fft2(x), "returned torch.complex64"),
        (lambda x: [x], "returned <class 'list'>"),
    ],
)
def test_a_function_that_is_no_operator_is_refused(function, message):
    with pytest.raises(OptionError, match=message):
        from_function(function, SHAPE)


def test_a_function_that_autograd_cannot_follow_needs_an_adjoint():
    operator = from_function(lambda x: torch.from_numpy(x.detach().numpy() * 2), SHAPE)
    with pytest.raises(OptionError, match="give its adjoint as well"):
        operator.adjoint(images())


def test_a_shape_is_three_positive_integers():
    with pytest.raises(ShapeError, match=r"give \(channels, height, width\)"):
        from_function(forward, (3, 4))
