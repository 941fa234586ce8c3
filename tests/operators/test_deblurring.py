import numpy as np
import pytest
import scipy.ndimage
import torch
from scipy.fft import dctn

from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.operators import Deblurring, anisotropic_kernel, gaussian_kernel, motion_kernel, uniform_kernel
from deqir.operators.convolution import SeparableConvolution, rank_one_factors
from deqir.operators.cosine import cosine_transform, inverse_cosine_transform

DISC = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 2, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]).double() / 22
MODES = {"circular": "wrap", "reflect": "reflect", "zero": "constant", "replicate": "nearest"}
SEPARABLE = {
    "gaussian": gaussian_kernel(5, 1.5),
    "uniform": uniform_kernel(3),
    "anisotropic": anisotropic_kernel(5, (2.0, 0.7)),
    "lopsided": torch.outer(torch.tensor([0.1, 0.6, 0.2, 0.3]).double(), torch.tensor([0.5, -0.1, 0.9]).double()),
    "single": torch.ones(1, 1),
    "row": torch.tensor([[0.2, 0.3, 0.5]]),
    "large": uniform_kernel(17),
}
MOTION = motion_kernel(5, 20)
SIZES = [(8, 8), (7, 9), (5, 12)]


def images(height, width, channels=3):
    return torch.rand(2, channels, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def direct(x, kernel, mode):
    weights = (kernel.double() / kernel.double().sum()).numpy()
    return torch.from_numpy(scipy.ndimage.convolve(x.numpy(), weights[None, None], mode=mode))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SEPARABLE)
@pytest.mark.parametrize("boundary", MODES)
def test_forward_is_direct_convolution(boundary, name, size):
    x = images(*size)
    y = Deblurring(SEPARABLE[name], boundary, threshold=0.0).forward(x)
    torch.testing.assert_close(y, direct(x, SEPARABLE[name], MODES[boundary]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "kernel", [MOTION, motion_kernel(15), torch.rand(4, 6).double()], ids=["short", "long", "even"]
)
def test_circular_takes_any_kernel(kernel, size):
    x = images(*size)
    torch.testing.assert_close(Deblurring(kernel, threshold=0.0).forward(x), direct(x, kernel, "wrap"))


@pytest.mark.parametrize("boundary", MODES)
def test_threshold_truncates_the_operator_and_its_inverse_alike(boundary):
    kernel, shape = gaussian_kernel(5, 1.5), (1, 7, 8)
    exact = Deblurring(kernel, boundary, 0.0).as_matrix(shape)
    U, s, Vt = torch.linalg.svd(exact)
    kept = s >= 0.2 * s.max()
    assert 0 < kept.sum() < len(s)
    operator = Deblurring(kernel, boundary, 0.2)
    torch.testing.assert_close(operator.as_matrix(shape), (U * (s * kept)) @ Vt)
    inverse = operator.pinv(torch.eye(56, dtype=torch.float64).reshape(56, *shape)).flatten(1).T
    torch.testing.assert_close(inverse, (Vt.T * torch.where(kept, 1 / s, 0)) @ U.T)


@pytest.mark.parametrize("boundary", ["circular", "reflect", "replicate"])
def test_constant_images_stay_constant(boundary):
    x = torch.full((1, 1, 6, 7), 0.5, dtype=torch.float64)
    torch.testing.assert_close(Deblurring(uniform_kernel(5), boundary, 0.0).forward(x), x)


def test_numerically_zero_singular_values_are_zero():
    operator = Deblurring(uniform_kernel(3), threshold=0.0)  # a box of 3 removes frequency 1/3 of a length of 9
    x = images(9, 9, 1)
    assert (operator.singular_values(operator.V_adjoint(x)) == 0).any()
    assert operator.pinv(operator.forward(x)).abs().max() < 10


def test_images_are_real_with_every_coefficient_kept_or_cut():
    for threshold in np.linspace(0, 0.9, 7):
        operator = Deblurring(motion_kernel(7, 10), threshold=float(threshold))
        x = images(8, 6)
        coefficients = operator.V_adjoint(x) * operator.singular_values(operator.V_adjoint(x))
        assert torch.fft.ifft2(coefficients, norm="ortho").imag.abs().max() < 1e-14


@pytest.mark.parametrize("size", [*SIZES, (1, 1), (1, 6), (2, 3)])
def test_cosine_transforms_are_those_of_scipy(size):
    x = images(*size)
    coefficients = cosine_transform(x)
    torch.testing.assert_close(coefficients, torch.from_numpy(dctn(x.numpy(), axes=(2, 3), norm="ortho")))
    torch.testing.assert_close(inverse_cosine_transform(coefficients), x)


@pytest.mark.parametrize("size", [*SIZES, (1, 6)])
def test_reflect_takes_symmetric_kernels_that_are_not_separable(size):
    x = images(*size)
    torch.testing.assert_close(Deblurring(DISC, "reflect", 0.0).forward(x), direct(x, DISC, "reflect"))


@pytest.mark.parametrize("kernel", [gaussian_kernel(5, 1.5), uniform_kernel(5)], ids=["gaussian", "uniform"])
def test_cosines_and_matrices_give_one_operator(kernel):
    x = images(7, 8)
    fast = Deblurring(kernel, "reflect", 0.1)
    dense = SeparableConvolution(*rank_one_factors(kernel.numpy()), "reflect", 0.1)
    for name in ("forward", "adjoint", "pinv", "range_projection"):
        torch.testing.assert_close(getattr(fast, name)(x), getattr(dense, name)(x))


def test_a_float32_kernel_counts_as_separable():
    assert Deblurring(gaussian_kernel(9, 1.3).float(), "reflect").image_shape((3, 4, 4)) == (3, 4, 4)


def test_the_kernel_is_normalised_and_copied():
    kernel = torch.ones(3, 3)
    operator = Deblurring(kernel)
    kernel.zero_()
    torch.testing.assert_close(operator.kernel, torch.full((3, 3), 1 / 9, dtype=torch.float64))


def test_errors():
    with pytest.raises(OptionError, match="boundary is 'mirror'"):
        Deblurring(MOTION, "mirror")
    with pytest.raises(
        OptionError, match=r"5x5 kernel is not symmetric about .*boundary 'reflect'.*use boundary='circular'"
    ):
        Deblurring(MOTION, "reflect")
    with pytest.raises(OptionError, match=r"5x5 kernel is not separable.*boundary 'zero'"):
        Deblurring(DISC, "zero")
    with pytest.raises(OptionError, match="sums to 0"):
        Deblurring(torch.tensor([[1.0, -1.0]]))
    with pytest.raises(OptionError, match="sums to 0"):
        Deblurring(torch.zeros(3, 3))
    with pytest.raises(NonFiniteError, match="kernel holds NaN"):
        Deblurring(torch.tensor([[1.0, float("nan")]]))
    for kernel in (torch.ones(3), torch.ones(1, 3, 3), torch.ones(0, 3)):
        with pytest.raises(ShapeError, match="the blur kernel has shape"):
            Deblurring(kernel)
    for threshold in (-0.1, 1.0, float("nan")):
        with pytest.raises(OptionError, match=f"threshold is {threshold}"):
            Deblurring(MOTION, threshold=threshold)
    with pytest.raises(ShapeError, match=r"\(4, 4\)"):
        Deblurring(MOTION).image_shape((4, 4))
