import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from deqir.errors import OptionError, ShapeError
from deqir.operators import SuperResolution


def images(*shape):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def keys(t):
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def bicubic_directly(signal, scale):
    """Independent of the library: pads the signal and sums tap by tap."""
    margin = 4 * scale
    padded = np.pad(signal, margin, mode="symmetric")
    result = []
    for start in range(0, len(signal), scale):
        centre = start + (scale - 1) / 2
        weights = np.array([keys((j - margin - centre) / scale) for j in range(len(padded))])
        result.append((weights * padded).sum() / weights.sum())
    return np.array(result)


@pytest.mark.parametrize(("scale", "height", "width"), [(2, 8, 6), (3, 9, 6), (4, 8, 12)])
def test_average_is_average_pooling(scale, height, width):
    x = images(2, 3, height, width)
    torch.testing.assert_close(SuperResolution(scale).forward(x), avg_pool2d(x, scale))


def test_last_block_averages_what_it_has():
    x = images(1, 1, 7, 9)
    expected = avg_pool2d(x, 4, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(SuperResolution(4, image_size=(7, 9)).forward(x), expected)


@pytest.mark.parametrize(("scale", "size"), [(1, 5), (2, 8), (3, 9), (4, 8), (2, 7), (3, 7), (4, 9), (5, 5)])
def test_bicubic_is_the_direct_sum(scale, size):
    x = images(1, 1, size, size)
    along_rows = np.apply_along_axis(bicubic_directly, 0, x[0, 0].numpy(), scale)
    expected = np.apply_along_axis(bicubic_directly, 1, along_rows, scale)
    y = SuperResolution(scale, "bicubic", image_size=(size, size)).forward(x)
    np.testing.assert_allclose(y[0, 0].numpy(), expected, atol=1e-12)


def test_bicubic_agrees_with_torch_away_from_the_edge():
    x = images(1, 1, 24, 24)
    expected = interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True)
    y = SuperResolution(2, "bicubic").forward(x)
    torch.testing.assert_close(y[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3])


@pytest.mark.parametrize("kernel", ["average", "bicubic"])
def test_constant_images_stay_constant(kernel):
    x = torch.full((1, 1, 7, 9), 0.25, dtype=torch.float64)
    y = SuperResolution(3, kernel, (7, 9)).forward(x)
    torch.testing.assert_close(y, torch.full((1, 1, 3, 3), 0.25, dtype=torch.float64))


def test_size_is_inferred_from_the_observation():
    operator = SuperResolution(3)
    assert operator.image_shape((3, 2, 4)) == (3, 6, 12)
    assert operator.pinv(images(2, 3, 2, 4)).shape == (2, 3, 6, 12)


@pytest.mark.parametrize("scale", [0, -2, 1.5, True, "4"])
def test_scale_must_be_a_positive_integer(scale):
    with pytest.raises(OptionError, match=f"scale is {scale!r}"):
        SuperResolution(scale)


def test_unknown_kernel():
    with pytest.raises(OptionError, match="'lanczos'"):
        SuperResolution(2, "lanczos")


@pytest.mark.parametrize("size", [(0, 4), (4,), (4, 2.5), 8])
def test_bad_image_size(size):
    with pytest.raises(OptionError, match="image_size"):
        SuperResolution(2, image_size=size)


def test_sizes_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"7x9, not a multiple of scale 2.*\.at\(\(channels, 7, 9\)\)"):
        SuperResolution(2).forward(images(1, 1, 7, 9))
    with pytest.raises(ShapeError, match="3x9, smaller than scale 4"):
        SuperResolution(4).at((1, 3, 9))
    with pytest.raises(ShapeError, match="3x9, smaller than scale 4"):
        SuperResolution(4).forward(images(1, 1, 3, 9))
    with pytest.raises(ShapeError, match="8x8 but the operator is fixed to 7x9"):
        SuperResolution(2, image_size=(7, 9)).forward(images(1, 1, 8, 8))
    with pytest.raises(ShapeError, match="observation is 3x5; give one of 4x5"):
        SuperResolution(2, image_size=(7, 9)).pinv(images(1, 1, 3, 5))
    with pytest.raises(ShapeError, match=r"\(3, 5\)"):
        SuperResolution(2).image_shape((3, 5))
