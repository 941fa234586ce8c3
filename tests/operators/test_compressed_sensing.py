import pytest
import scipy.linalg
import torch

from deqir.errors import OptionError, ShapeError
from deqir.operators import CompressedSensing
from deqir.operators.hadamard import walsh_hadamard


@pytest.mark.parametrize("length", [1, 2, 8, 16])
def test_fast_transform_is_the_hadamard_matrix(length):
    x = torch.rand(3, length, dtype=torch.float64)
    matrix = torch.from_numpy(scipy.linalg.hadamard(length)).double() / length**0.5
    torch.testing.assert_close(walsh_hadamard(x), x @ matrix)
    torch.testing.assert_close(walsh_hadamard(walsh_hadamard(x)), x)


def test_fast_transform_needs_a_power_of_two():
    with pytest.raises(ShapeError, match="length 6"):
        walsh_hadamard(torch.rand(6))


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 12), (3, 2)])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 1.0])
def test_rows_are_orthonormal(size, ratio):
    A = CompressedSensing(ratio, block=4).as_matrix((1, *size))
    torch.testing.assert_close(A @ A.T, torch.eye(len(A), dtype=torch.float64))
    if size == (8, 8):
        assert len(A) == 4 * max(1, round(16 * ratio))


def test_the_mean_of_each_tile_is_measured():
    operator = CompressedSensing(0.01, image_size=(8, 8), block=4)
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    expected = torch.nn.functional.avg_pool2d(x, 4).flatten(2) * 4
    torch.testing.assert_close(operator.forward(x), expected)


def test_tiles_are_independent_of_the_image_size():
    small, large = CompressedSensing(0.5, block=4), CompressedSensing(0.5, block=4)
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(large.forward(x)[..., :8], small.forward(x[..., :4, :4]))


def test_the_seed_decides():
    x = torch.rand(1, 1, 8, 8)
    assert torch.equal(CompressedSensing(0.5, seed=1).forward(x), CompressedSensing(0.5, seed=1).forward(x))
    assert not torch.equal(CompressedSensing(0.5, seed=1).forward(x), CompressedSensing(0.5, seed=2).forward(x))


@pytest.mark.parametrize("ratio", [0, -1, 1.5, float("nan")])
def test_ratio_must_be_a_fraction(ratio):
    with pytest.raises(OptionError, match=f"ratio is {ratio}"):
        CompressedSensing(ratio)


def test_errors():
    with pytest.raises(OptionError, match="block is 0"):
        CompressedSensing(0.5, block=0)
    with pytest.raises(OptionError, match="seed is -1"):
        CompressedSensing(0.5, seed=-1)
    with pytest.raises(ShapeError, match=r"image size is unknown.*\.at\(\(channels, height, width\)\)"):
        CompressedSensing(0.5).adjoint(torch.rand(1, 1, 32))
    operator = CompressedSensing(0.5).at((1, 8, 8))
    with pytest.raises(ShapeError, match="31 measurements per channel; give 32"):
        operator.pinv(torch.rand(1, 1, 31))
    with pytest.raises(ShapeError, match="4x4 but the operator is fixed to 8x8"):
        operator.forward(torch.rand(1, 1, 4, 4))
    with pytest.raises(ShapeError, match=r"\(1, 4, 4\)"):
        operator.image_shape((1, 4, 4))
