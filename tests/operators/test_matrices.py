"""Dense and sparse matrices and SciPy linear operators as operators."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.operators import DecomposableOperator, Inpainting, MatrixOperator, as_operator, check_operator

SHAPE = (2, 3, 4)
DENSE = np.random.default_rng(0).normal(size=(10, 24)) * (np.random.default_rng(1).random((10, 24)) < 0.4)
KINDS = {
    "array": lambda A: A,
    "tensor": torch.from_numpy,
    "csr": scipy.sparse.csr_array,
    "matrix": scipy.sparse.coo_matrix,
    "linear": scipy.sparse.linalg.aslinearoperator,
}
EVERY = pytest.mark.parametrize("kind", KINDS)


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@EVERY
def test_every_kind_is_the_matrix_with_its_transpose_and_pseudo_inverse(kind):
    operator = as_operator(KINDS[kind](DENSE), SHAPE)
    x, A, P = drawn(2, *SHAPE), torch.from_numpy(DENSE), torch.from_numpy(np.linalg.pinv(DENSE))
    y = operator.forward(x)
    torch.testing.assert_close(y, x.flatten(1) @ A.T)
    torch.testing.assert_close(operator.adjoint(y), (y @ A).reshape(-1, *SHAPE))
    torch.testing.assert_close(operator.pinv(y), (y @ P.T).reshape(-1, *SHAPE), rtol=1e-5, atol=1e-5)
    assert operator.image_shape((10,)) == SHAPE and operator.observation_shape(SHAPE) == (10,)


@EVERY
def test_every_kind_passes_the_check(kind):
    report = check_operator(KINDS[kind](DENSE), SHAPE)
    assert report.ok, report


@EVERY
def test_derivatives_by_the_argument(kind):
    operator = as_operator(KINDS[kind](DENSE), SHAPE)
    y = drawn(2, 10).requires_grad_()
    assert torch.autograd.gradcheck(operator.adjoint, (y,))
    assert torch.autograd.gradcheck(operator.pinv, (y,), atol=1e-4)


def test_a_dense_matrix_is_decomposed():
    operator = MatrixOperator(DENSE, SHAPE)
    coefficients = operator.V_adjoint(drawn(2, *SHAPE))
    assert isinstance(operator, DecomposableOperator) and operator.pinv_is_exact
    torch.testing.assert_close(operator.singular_values(coefficients), torch.linalg.svdvals(torch.from_numpy(DENSE)))
    torch.testing.assert_close(operator.V_adjoint(operator.V(coefficients)), coefficients)
    torch.testing.assert_close(operator.U_adjoint(operator.U(coefficients)), coefficients)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rank_deficiency_is_seen_through_rounding(dtype):
    factors = np.random.default_rng(2)
    matrix = (factors.normal(size=(10, 3)) @ factors.normal(size=(3, 24))).astype(dtype)
    operator = MatrixOperator(matrix, SHAPE)
    coefficients = operator.V_adjoint(drawn(1, *SHAPE))
    assert coefficients.shape == (1, 3)
    exact = np.linalg.pinv(matrix.astype(np.float64), rcond=1e-4)
    pinv = operator.pinv(torch.eye(10).double()).flatten(1).T
    torch.testing.assert_close(pinv, torch.from_numpy(exact), rtol=1e-4, atol=1e-5)


def test_a_matrix_for_one_channel_serves_three_and_stays_decomposed():
    matrix = DENSE[:, :12]
    colour = as_operator(matrix, (1, 3, 4)).at((3, 3, 4)).repeated(2)
    x = drawn(4, 3, 3, 4)
    y = colour.forward(x)
    assert isinstance(colour, DecomposableOperator)
    torch.testing.assert_close(y, x.flatten(2) @ torch.from_numpy(matrix).T)
    torch.testing.assert_close(colour.pinv(y).flatten(2), y @ torch.from_numpy(np.linalg.pinv(matrix)).T)
    coefficients = colour.V_adjoint(x)
    s = colour.singular_values(coefficients)
    torch.testing.assert_close(colour.U(s * coefficients), y)
    torch.testing.assert_close(colour.V(s * colour.U_adjoint(y)), colour.adjoint(y))


def test_operators_pass_through_and_are_fixed():
    operator = Inpainting(torch.ones(3, 4))
    assert as_operator(operator) is operator
    with pytest.raises(ShapeError, match="the mask is 3x4"):
        as_operator(operator, (3, 5, 5))


@pytest.mark.parametrize(
    ("thing", "shape", "error", "message"),
    [
        (DENSE, None, OptionError, r"a matrix does not tell the shape of its images; use as_operator\(it, \(C, H, W\)"),
        (lambda x: x, None, OptionError, "a function does not tell the shape"),
        ("blur", SHAPE, OptionError, "str is no operator; give a deqir operator, a deepinv LinearPhysics, a matrix"),
        (DENSE, (1, 3, 4), ShapeError, "give one with 12 columns"),
        (scipy.sparse.csr_array(DENSE), (1, 3, 4), ShapeError, "give one with 12 columns"),
        (DENSE * 0, SHAPE, OptionError, "zero everywhere"),
        (DENSE * 1j, SHAPE, OptionError, "complex"),
        (scipy.sparse.csr_array(DENSE * 1j), SHAPE, OptionError, "complex"),
        (DENSE * np.nan, SHAPE, NonFiniteError, "NaN"),
        (scipy.sparse.csr_array(DENSE * np.nan), SHAPE, NonFiniteError, "NaN"),
        (torch.from_numpy(DENSE).clone().requires_grad_(), SHAPE, OptionError, "use from_function"),
        (scipy.sparse.linalg.LinearOperator((10, 24), lambda x: DENSE @ x), SHAPE, OptionError, "no rmatvec"),
    ],
)
def test_what_is_no_operator_is_refused(thing, shape, error, message):
    with pytest.raises(error, match=message):
        as_operator(thing, shape)


def test_a_sparse_matrix_of_whole_numbers_is_one_of_numbers():
    whole = np.arange(-3, 9).reshape(3, 4)
    x = torch.linspace(0, 1, 4, dtype=torch.float64).view(1, 1, 2, 2)
    for dtype in (np.int8, np.int64, np.float32):
        operator = as_operator(scipy.sparse.csr_array(whole.astype(dtype)), (1, 2, 2))
        torch.testing.assert_close(operator.forward(x)[0].flatten(), torch.from_numpy(whole * 1.0) @ x.flatten())
        assert operator.adjoint(operator.forward(x)).dtype == torch.float64
