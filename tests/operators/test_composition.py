"""Compositions: what is exact is exact by dense matrices, and what is not says so."""

import pytest
import torch

from deqir.errors import ShapeError
from deqir.operators import (
    Colorization,
    CompressedSensing,
    Deblurring,
    DecomposableOperator,
    Denoising,
    Inpainting,
    LeastSquares,
    ParametricBlur,
    SoftMask,
    SuperResolution,
    compose,
    from_function,
    gaussian_kernel,
    random_mask,
)
from deqir.operators.composition import IterativeComposition

SHAPE = (3, 8, 8)
GENERATOR = torch.Generator().manual_seed(0)
MASK, SMALL_MASK = random_mask(8, 8, 0.4, GENERATOR), random_mask(4, 4, 0.4, GENERATOR)
COLOUR_MASK = torch.rand(3, 8, 8, generator=GENERATOR) > 0.4
BLUR = Deblurring(gaussian_kernel())
OLD_PHOTO = Colorization() @ Inpainting(SMALL_MASK) @ SuperResolution(2)

EXACT = {
    "old-photo": OLD_PHOTO,
    "old-photo-right": Colorization() @ (Inpainting(SMALL_MASK) @ SuperResolution(2)),
    "grey-first": Inpainting(MASK) @ Colorization("luma"),
    "grey-last": Colorization("luma") @ Inpainting(MASK),
    "grey-blurred": Colorization() @ BLUR,
    "grey-bicubic": Colorization() @ SuperResolution(2, "bicubic"),
    "grey-odd": Colorization() @ SuperResolution(3).at(SHAPE),
    "sensed-small": CompressedSensing(0.5, block=4) @ SuperResolution(2),
    "grey-sensed": Colorization() @ CompressedSensing(0.5, block=4),
    "blurred-small": BLUR @ SuperResolution(2),
    "twice-small": SuperResolution(2) @ SuperResolution(2),
    "two-masks": Inpainting(MASK) @ Inpainting(COLOUR_MASK),
    "identity": Denoising() @ BLUR @ Denoising(),
}
ITERATIVE = {
    "masked-blur": Inpainting(MASK) @ BLUR,
    "small-blur": SuperResolution(2) @ BLUR,
    "grey-colour-mask": Colorization() @ Inpainting(COLOUR_MASK),
    "masked-bicubic": Inpainting(SMALL_MASK) @ SuperResolution(2, "bicubic"),
    "masked-odd": Inpainting(random_mask(3, 3, 0.3, GENERATOR)) @ SuperResolution(3).at(SHAPE),
}
EVERY = EXACT | ITERATIVE


def factors(operator):
    return operator.at(SHAPE)


def columns(function, shape):
    size = int(torch.tensor(shape).prod())
    return function(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).T


@pytest.mark.parametrize("name", EVERY)
def test_adjoint_and_pseudo_inverse_are_those_of_the_matrix(name):
    operator = factors(EVERY[name])
    A, tolerance = operator.as_matrix(SHAPE), 1e-10 if name in EXACT else 1e-4
    measured = operator.observation_shape(SHAPE)
    torch.testing.assert_close(columns(operator.adjoint, measured), A.T, rtol=1e-10, atol=1e-10)
    P = torch.linalg.pinv(A, rtol=1e-8)
    torch.testing.assert_close(columns(operator.pinv, measured), P, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(columns(operator.range_projection, SHAPE), P @ A, rtol=tolerance, atol=tolerance)
    assert operator.pinv_is_exact == (name in EXACT)
    assert operator.image_shape(measured) == SHAPE


@pytest.mark.parametrize("name", EXACT)
def test_exact_ones_are_decomposed(name):
    operator = factors(EXACT[name])
    assert isinstance(operator, DecomposableOperator)
    x = torch.rand(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    coefficients, y = operator.V_adjoint(x), operator.forward(x)
    s = operator.singular_values(coefficients)
    torch.testing.assert_close(operator.U(s * coefficients), y)
    torch.testing.assert_close(operator.V(s * operator.U_adjoint(y)), operator.adjoint(y))
    seen = s > 0
    torch.testing.assert_close(operator.V_adjoint(operator.V(coefficients)) * seen, coefficients * seen)


def test_the_order_is_that_of_matrices():
    first, second = Inpainting(MASK), SuperResolution(2)
    x = torch.rand(1, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close((second @ first).at(SHAPE).forward(x), second.forward(first.forward(x)))


def test_the_product_of_pseudo_inverses_is_not_taken_for_the_pseudo_inverse():
    """DDNM's A1+ A2+ (arXiv 2212.00490, sec. 3.2) is another map where the factors do not fit."""
    operator = factors(ITERATIVE["masked-blur"])
    y = operator.forward(torch.rand(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    product = BLUR.pinv(Inpainting(MASK).pinv(y))
    again = operator.forward(product)
    assert (again - y).norm() > 0.1 * y.norm()
    assert (operator.forward(operator.pinv(y)) - y).norm() < 1e-6 * y.norm()


def test_the_tolerance_of_an_iterative_composition_is_kept_and_can_be_set():
    operator = IterativeComposition(Inpainting(MASK), BLUR, LeastSquares(1e-11, 900))
    assert operator.at(SHAPE).repeated(2).least_squares == LeastSquares(1e-11, 900)
    y = operator.forward(torch.rand(1, *SHAPE, dtype=torch.float64))
    assert (operator.forward(operator.pinv(y)) - y).norm() < 1e-10 * y.norm()


def test_an_iterative_outer_operator_stays_iterative_after_orthogonal_rows():
    halved = from_function(lambda x: x[..., ::2] + x[..., 1::2], (3, 4, 4), tolerance=1e-12)
    operator = (halved @ SuperResolution(2)).at(SHAPE)
    assert not operator.pinv_is_exact and not isinstance(operator, DecomposableOperator)
    A = operator.as_matrix(SHAPE)
    P = columns(operator.pinv, (3, 4, 2))
    torch.testing.assert_close(P, torch.linalg.pinv(A), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(columns(operator.range_projection, SHAPE), P @ A, rtol=1e-9, atol=1e-9)


def test_masks_per_image_are_repeated():
    masks = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(4)) > 0.4
    operator = (Inpainting(masks) @ SuperResolution(2)).at(SHAPE)
    x = torch.rand(2, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(operator.repeated(3).forward(x.repeat(3, 1, 1, 1))[4:], operator.forward(x))


@pytest.mark.parametrize("name", ["old-photo", "masked-blur"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_dtype_follows_the_argument(name, dtype):
    operator = factors(EVERY[name])
    x = torch.rand(1, *SHAPE).to(dtype)
    y = operator.forward(x)
    for result in (y, operator.adjoint(y), operator.pinv(y), operator.range_projection(x)):
        assert result.dtype == dtype
    torch.testing.assert_close(y.double(), operator.forward(x.double()), rtol=2e-3, atol=2e-3)


def test_three_channels_can_be_one():
    """A grey image under a colour prior asks for the operator at three channels."""
    operator = Inpainting(SMALL_MASK) @ SuperResolution(2)
    grey = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    y = operator.at((1, 8, 8)).forward(grey)
    torch.testing.assert_close(operator.at(SHAPE).forward(grey.expand(-1, 3, -1, -1)), y.expand(-1, 3, -1, -1))


def test_parameters_are_differentiated_through_a_composition():
    kernel = torch.tensor([[0.1, 0.6], [0.4, 0.2]], dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(0.2, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
    x = torch.rand(1, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def exact(kernel):
        return (Colorization() @ ParametricBlur(kernel, 0.0)).range_projection(x) + (
            Colorization() @ ParametricBlur(kernel, 0.0)
        ).pinv(x[:, :1])

    def iterative(kernel, weights):
        operator = IterativeComposition(SoftMask(weights), ParametricBlur(kernel, 0.0), LeastSquares(1e-13))
        return operator.pinv(x[:, :1])

    assert torch.autograd.gradcheck(exact, (kernel,))
    assert torch.autograd.gradcheck(iterative, (kernel, weights))


def test_what_is_no_operator_cannot_be_composed():
    with pytest.raises(TypeError, match="unsupported operand"):
        SuperResolution(2) @ torch.ones(3, 3)


def test_measurements_are_no_images():
    with pytest.raises(ShapeError, match="CompressedSensing gives observations of shape"):
        (BLUR @ CompressedSensing(0.5)).at(SHAPE)


def test_compose_is_the_matrix_product():
    assert type(compose(Colorization(), BLUR)) is type(Colorization() @ BLUR)
