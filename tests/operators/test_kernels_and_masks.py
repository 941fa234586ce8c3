import numpy as np
import pytest
import torch

from deqir import operators
from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.operators import (
    anisotropic_kernel,
    box_mask,
    gaussian_kernel,
    kernel_from_image,
    motion_kernel,
    random_mask,
    text_mask,
    uniform_kernel,
)


@pytest.mark.parametrize(
    ("kernel", "size"),
    [
        (gaussian_kernel(), 5),
        (uniform_kernel(), 9),
        (anisotropic_kernel(), 9),
        (motion_kernel(), 15),
        (motion_kernel(6, 120), 7),
        (motion_kernel(1, 3), 1),
    ],
)
def test_kernels_sum_to_one_and_are_point_symmetric(kernel, size):
    assert kernel.dtype == torch.float64 and kernel.shape == (size, size)
    assert kernel.min() >= 0
    torch.testing.assert_close(kernel.sum().item(), 1.0)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))


def test_kernels_of_any_width_sum_to_one():
    for kernel in (anisotropic_kernel(7, (3.0, 1.0)), gaussian_kernel(7, 0.5), motion_kernel(9, 33.0)):
        assert kernel.sum().item() == pytest.approx(1)
    torch.testing.assert_close(gaussian_kernel(), gaussian_kernel(5, 10.0))
    assert not torch.allclose(gaussian_kernel(5, 10.0), gaussian_kernel(5, 9.0))


def test_anisotropic_is_wide_where_sigma_is():
    kernel = anisotropic_kernel(9, (20.0, 1.0))
    assert kernel[0, 4] > 0.9 * kernel[4, 4] and kernel[4, 0] < 0.01 * kernel[4, 4]


def test_motion_follows_its_angle():
    assert torch.linalg.matrix_rank(motion_kernel(7, 0)) == 1
    assert motion_kernel(7, 0)[3].sum() == pytest.approx(1)
    assert motion_kernel(7, 90)[:, 3].sum() == pytest.approx(1)
    rising = motion_kernel(7, 45)  # row 0 is at the top
    assert rising[1, 5] > 0 and rising[1, 1] == 0
    assert torch.allclose(motion_kernel(7, 180), motion_kernel(7, 0))


def test_kernel_from_image_averages_normalises_and_pads():
    grey = np.array([[0, 2], [4, 2]], dtype=np.uint8)
    expected = torch.tensor([[0, 0.25, 0], [0.5, 0.25, 0], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(kernel_from_image(grey), expected)
    torch.testing.assert_close(kernel_from_image(torch.from_numpy(grey)), expected)
    opaque = np.full_like(grey, 255)
    torch.testing.assert_close(kernel_from_image(np.stack([grey, grey, grey, opaque], axis=-1)), expected)
    torch.testing.assert_close(kernel_from_image(torch.from_numpy(grey).expand(3, 2, 2)), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_kernel_image_of_any_shape_and_channels(channels):
    colours = np.array([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]]).repeat(channels, -1)
    if channels in (2, 4):
        colours[..., -1] = np.arange(6).reshape(2, 3)  # opacity does not count
    expected = torch.zeros(3, 3, dtype=torch.float64)
    expected[:2] = torch.arange(1.0, 7.0, dtype=torch.float64).view(2, 3) / 21
    torch.testing.assert_close(kernel_from_image(colours), expected)
    assert kernel_from_image(np.ones((1, 1))).tolist() == [[1.0]]


def test_kernel_errors():
    for maker in (gaussian_kernel, uniform_kernel, anisotropic_kernel):
        with pytest.raises(OptionError, match="taps is 4; give an odd"):
            maker(4)
        with pytest.raises(OptionError, match="taps is 0"):
            maker(0)
    with pytest.raises(OptionError, match=r"sigma is 0\.0"):
        gaussian_kernel(5, 0.0)
    with pytest.raises(OptionError, match="sigma is -1"):
        anisotropic_kernel(5, (2.0, -1.0))
    with pytest.raises(OptionError, match="length is 0"):
        motion_kernel(0)
    with pytest.raises(OptionError, match="angle is inf"):
        motion_kernel(5, float("inf"))
    with pytest.raises(ShapeError, match=r"\(5,\)"):
        kernel_from_image(np.ones(5))
    with pytest.raises(ShapeError, match=r"\(2, 2, 9\)"):
        kernel_from_image(np.ones((2, 2, 9)))
    with pytest.raises(OptionError, match=r"negative value -1\.0"):
        kernel_from_image(-np.ones((2, 2)))
    with pytest.raises(OptionError, match="0 everywhere"):
        kernel_from_image(np.zeros((2, 2)))
    with pytest.raises(NonFiniteError, match="NaN"):
        kernel_from_image(np.full((2, 2), np.nan))


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9])
def test_random_mask_hides_the_fraction(fraction):
    mask = random_mask(10, 12, fraction, torch.Generator().manual_seed(0))
    assert mask.shape == (1, 1, 10, 12)
    assert (mask == 0).sum() == round(fraction * 120) and ((mask == 0) | (mask == 1)).all()
    assert torch.equal(mask, random_mask(10, 12, fraction, torch.Generator().manual_seed(0)))


def test_box_mask_hides_the_box():
    assert box_mask(8, 12).sum() == 96 - 24
    assert (box_mask(8, 12)[..., 2:6, 3:9] == 0).all()
    mask = box_mask(8, 12, (1, 2, 3, 4))
    assert (mask[..., 1:4, 2:6] == 0).all() and mask.sum() == 96 - 12


def test_a_box_may_touch_every_edge():
    for box in ((0, 0, 8, 7), (5, 6, 3, 2), (0, 0, 1, 8)):
        mask = box_mask(8, 8, box)
        assert mask.sum() == 64 - box[2] * box[3]
        assert mask[0, 0, box[0], box[1]] == 0


def test_masks_are_float32():
    made = (
        random_mask(4, 5, 0.5),
        random_mask(4, 5, 0.5, torch.Generator().manual_seed(1)),
        box_mask(4, 5),
        text_mask(9, 9),
    )
    assert {mask.dtype for mask in made} == {torch.float32}


def test_text_mask_writes_over_the_whole_image():
    mask = text_mask(64, 96, seed=1)
    assert mask.shape == (1, 1, 64, 96) and set(mask.unique().tolist()) == {0.0, 1.0}
    assert 0.05 < (mask == 0).double().mean() < 0.5
    assert all((part == 0).any() for half in mask.chunk(2, -1) for part in half.chunk(3, -2))
    assert torch.equal(mask, text_mask(64, 96, seed=1)) and not torch.equal(mask, text_mask(64, 96, seed=2))


def test_mask_errors():
    for fraction in (1.0, -0.1, 0.999, float("nan")):
        with pytest.raises(OptionError, match=f"fraction_hidden is {fraction}"):
            random_mask(4, 4, fraction)
    for box in ((0, 0, 8, 8), (-1, 0, 2, 2), (0, 7, 2, 2), (0, 0, 0, 2)):
        with pytest.raises(OptionError, match="does not fit in 8x8"):
            box_mask(8, 8, box)
    with pytest.raises(OptionError, match="height is 0"):
        text_mask(0, 8)
    with pytest.raises(OptionError, match="font_size is 0"):
        text_mask(8, 8, font_size=0)


def test_public_names_exist():
    assert all(hasattr(operators, name) for name in operators.__all__)
