"""What every operator must satisfy, crossed with every operator and option."""

import math

import pytest
import torch

from deqir.operators import (
    Colorization,
    CompressedSensing,
    Deblurring,
    DecomposableOperator,
    Denoising,
    Inpainting,
    ParametricBlur,
    SoftMask,
    SuperResolution,
    Unobserved,
    anisotropic_kernel,
    gaussian_kernel,
    motion_kernel,
    random_mask,
    uniform_kernel,
)

GREY, COLOUR, ODD, WIDE = (1, 8, 8), (3, 8, 8), (1, 7, 9), (3, 5, 12)
SKEWED = torch.tensor([[0.1, 0.5, -0.1], [0.2, 0.9, 0.3]], dtype=torch.float64)
SOFT = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(8, 8).relu()
RING = torch.tensor([[1.0, 2, 1], [2, -1, 2], [1, 2, 1]])  # symmetric, of rank 2, and it inverts some frequencies
TAPS = torch.outer(torch.tensor([0.2, 0.7, 0.3, 0.1]).double(), torch.tensor([-0.2, 1.0, 0.4]).double())


def mask(height: int, width: int) -> torch.Tensor:
    return random_mask(height, width, 0.4, torch.Generator().manual_seed(0))


CASES = {
    "denoising": (Denoising(), ODD),
    "colorization-mean": (Colorization(), WIDE),
    "colorization-luma": (Colorization("luma"), COLOUR),
    "colorization-custom": (Colorization((0.5, -0.2, 2.0)), COLOUR),
    "average-1": (SuperResolution(1), ODD),
    "average-2": (SuperResolution(2), COLOUR),
    "average-4": (SuperResolution(4), GREY),
    "average-3-odd": (SuperResolution(3), ODD),
    "average-5-wide": (SuperResolution(5), WIDE),
    "bicubic-1": (SuperResolution(1, "bicubic"), ODD),
    "bicubic-2": (SuperResolution(2, "bicubic"), COLOUR),
    "bicubic-4": (SuperResolution(4, "bicubic"), GREY),
    "bicubic-3-odd": (SuperResolution(3, "bicubic"), ODD),
    "bicubic-5-wide": (SuperResolution(5, "bicubic"), WIDE),
    "inpainting": (Inpainting(mask(7, 9)), ODD),
    "inpainting-colour": (Inpainting(mask(5, 12)), WIDE),
    "inpainting-channels": (Inpainting(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5), COLOUR),
    "circular-uniform": (Deblurring(uniform_kernel(3)), COLOUR),
    "circular-motion": (Deblurring(motion_kernel(5, 30), threshold=0.0), ODD),
    "circular-motion-large": (Deblurring(motion_kernel(15), threshold=0.1), GREY),
    "circular-skewed": (Deblurring(SKEWED), WIDE),
    "circular-skewed-odd": (Deblurring(SKEWED, threshold=0.3), ODD),
    "reflect-gaussian": (Deblurring(gaussian_kernel(), "reflect"), COLOUR),
    "reflect-ring": (Deblurring(RING, "reflect", 0.1), ODD),
    "reflect-ring-wide": (Deblurring(RING, "reflect"), WIDE),
    "reflect-exact": (Deblurring(TAPS, "reflect", 0.0), ODD),
    "zero-anisotropic": (Deblurring(anisotropic_kernel(), "zero"), WIDE),
    "zero-exact": (Deblurring(TAPS, "zero", 0.0), ODD),
    "replicate-uniform": (Deblurring(uniform_kernel(5), "replicate", 0.1), ODD),
    "replicate-exact": (Deblurring(TAPS, "replicate", 0.0), GREY),
    "parametric-blur": (ParametricBlur(SKEWED), WIDE),
    "parametric-blur-odd": (ParametricBlur(SKEWED / 2, threshold=0.3), ODD),
    "soft-mask": (SoftMask(SOFT), COLOUR),
    "unobserved": (Unobserved(), ODD),
    "soft-mask-channels": (SoftMask(torch.stack([SOFT, -SOFT, SOFT.T])), COLOUR),
    "sensing-half": (CompressedSensing(0.5, block=4), COLOUR),
    "sensing-quarter": (CompressedSensing(0.25, block=8), GREY),
    "sensing-odd": (CompressedSensing(0.3, block=4, seed=3), ODD),
    "sensing-wide": (CompressedSensing(0.6), WIDE),
    "sensing-all": (CompressedSensing(1.0, block=3), ODD),
}
EVERY = pytest.mark.parametrize(("operator", "shape"), CASES.values(), ids=CASES.keys())


def images(shape, count=2, dtype=torch.float64, seed=0):
    return torch.rand(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def columns(function, shape):
    """The matrix of ``function`` on inputs of ``shape``."""
    size = math.prod(shape)
    return function(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).T


def assert_close(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@EVERY
def test_adjoint_and_pinv_are_those_of_the_matrix(operator, shape):
    operator = operator.at(shape)
    A = operator.as_matrix(shape)
    observation = operator.forward(images(shape)).shape[1:]
    assert_close(columns(operator.adjoint, observation), A.T)
    P = columns(operator.pinv, observation)
    assert_close(A @ P @ A, A)
    assert_close(P @ A @ P, P, 1e-9)
    assert_close(A @ P, (A @ P).T)
    assert_close(P @ A, (P @ A).T)
    assert_close(columns(operator.range_projection, shape), P @ A, 1e-9)


@EVERY
def test_adjoint_is_the_transpose_in_inner_products(operator, shape):
    operator, x = operator.at(shape), images(shape)
    y = torch.rand_like(operator.forward(x))
    assert_close((operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum())


@EVERY
def test_decomposition_gives_the_operator(operator, shape):
    operator, x = operator.at(shape), images(shape)
    coefficients = operator.V_adjoint(x)
    s = operator.singular_values(coefficients)
    assert isinstance(operator, DecomposableOperator)
    assert not s.is_complex() and bool((s >= 0).all())
    y = operator.forward(x)
    assert_close(operator.U(s * coefficients), y)
    seen = s > 0
    assert_close(operator.V_adjoint(operator.V(coefficients)) * seen, coefficients * seen)
    assert_close(operator.U_adjoint(operator.U(coefficients)) * seen, coefficients * seen)
    assert_close(operator.V(s * operator.U_adjoint(y)), operator.adjoint(y))
    assert_close(operator.V(seen * coefficients), operator.range_projection(x))
    inverse = torch.where(seen, 1 / s, 0)
    assert_close(operator.V(inverse * operator.U_adjoint(y)), operator.pinv(y), 1e-9)


@EVERY
def test_singular_values_are_those_of_the_matrix(operator, shape):
    operator = operator.at(shape)
    coefficients = operator.V_adjoint(images(shape, 1))
    ours = operator.singular_values(coefficients).expand(coefficients.shape).flatten()
    exact = torch.linalg.svdvals(operator.as_matrix(shape))
    count = min(len(ours), len(exact))
    assert_close(ours.sort(descending=True).values[:count], exact[:count])


@EVERY
def test_image_shape_inverts_forward(operator, shape):
    operator = operator.at(shape)
    assert operator.image_shape(tuple(operator.forward(images(shape)).shape[1:])) == shape


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_follows_the_argument(operator, shape, dtype):
    operator, x = operator.at(shape), images(shape, dtype=dtype)
    y = operator.forward(x)
    tolerance = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}[dtype]
    for result, exact in [
        (y, operator.forward(x.double())),
        (operator.adjoint(y), operator.adjoint(y.double())),
        (operator.range_projection(x), operator.range_projection(x.double())),
    ]:
        assert result.dtype == dtype
        assert_close(result.double(), exact, tolerance)
    assert operator.pinv(y).dtype == dtype
    if dtype != torch.float32:
        assert operator.V_adjoint(x).dtype in (torch.float32, torch.complex64)


@EVERY
def test_device_follows_the_argument(operator, shape):
    operator, x = operator.at(shape), images(shape, dtype=torch.float32).to("meta")
    for result in (operator.pinv(operator.forward(x)), operator.range_projection(x), operator.V(operator.V_adjoint(x))):
        assert result.device.type == "meta" and result.shape == x.shape


@EVERY
def test_batch_equals_one_by_one(operator, shape):
    operator, x = operator.at(shape), images(shape, 3)
    assert_close(operator.pinv(operator.forward(x))[1:2], operator.pinv(operator.forward(x[1:2])))


@EVERY
def test_repeated_serves_copies(operator, shape):
    operator, x = operator.at(shape), images(shape)
    repeated = operator.repeated(3)
    assert_close(repeated.forward(x.repeat(3, 1, 1, 1))[2:4], operator.forward(x))


@EVERY
def test_gradient_flows_after_inference_mode(operator, shape):
    operator = operator.at(shape)
    with torch.inference_mode():
        operator.range_projection(images(shape))
    x = images(shape).requires_grad_()
    operator.range_projection(x).square().sum().backward()
    assert_close(x.grad, 2 * operator.range_projection(x.detach()), 1e-9)


@pytest.mark.parametrize("name", [name for name, (_, shape) in CASES.items() if "color" not in name])
def test_equal_channels_stay_equal(name):
    operator, (_, height, width) = CASES[name]
    if name in ("inpainting-channels", "soft-mask-channels"):
        pytest.skip("a mask per channel hides different pixels")
    grey = images((1, height, width))
    operator = operator.at((3, height, width))
    y = operator.forward(grey.expand(-1, 3, -1, -1))
    assert_close(y, operator.forward(grey).expand_as(y))


@EVERY
def test_an_image_needs_four_axes_and_a_float_dtype(operator, shape):
    operator = operator.at(shape)
    with pytest.raises(ValueError, match=r"the image tensor has shape \(8, 8\)"):
        operator.forward(torch.rand(8, 8))
    with pytest.raises(ValueError, match=r"dtype torch\.uint8"):
        operator.forward(torch.zeros(1, *shape, dtype=torch.uint8))
    with pytest.raises(ValueError, match="has shape"):
        operator.pinv(torch.rand(3))


def test_autocast_does_not_lower_the_precision():
    operator, x = SuperResolution(2, "bicubic"), images(COLOUR, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = operator.forward(x)
    assert_close(lowered, operator.forward(x), 1e-6)
