"""Estimated noise levels against known ones, on photographs the numbers were not tuned on."""

import pytest
import torch
from PIL import Image

from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.images import read_image
from deqir.noise import generator
from deqir.noise_estimation import estimate_noise
from deqir.operators import random_mask


def photo(side=192):
    from skimage import data

    return torch.from_numpy(data.rocket()[100 : 100 + side, 200 : 200 + side].copy()).permute(2, 0, 1).float() / 255


def noisy(image, sigma, seed=0):
    return image + sigma * torch.randn(image.shape, generator=generator(seed, "observation"))


@pytest.mark.parametrize("sigma", [0.02, 0.05, 0.1, 0.2])
def test_the_level_is_found_in_colour_and_grey(sigma):
    image = photo()
    assert estimate_noise(noisy(image, sigma)) == pytest.approx(sigma, rel=0.1)
    assert estimate_noise(noisy(image.mean(0, keepdim=True), sigma)) == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_pixels_that_are_not_known_are_not_looked_at(sigma):
    image = noisy(photo(), sigma)
    mask = random_mask(192, 192, 0.5, torch.Generator().manual_seed(0))[0]
    hidden = mask.expand(image.shape) == 0
    estimate = estimate_noise(image, mask)
    assert estimate == pytest.approx(sigma, rel=0.1)
    for filling in (0.0, 5.0, torch.nan):
        assert estimate_noise(image.masked_fill(hidden, filling), mask) == estimate
    grey = image.mean(0, keepdim=True)
    assert estimate_noise(grey, mask) == pytest.approx(sigma / 3**0.5, rel=0.3)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 10, 10), (3, 2, 64)])
def test_small_images_have_an_estimate_too(shape):
    assert estimate_noise(noisy(torch.full(shape, 0.5), 0.1)) == pytest.approx(0.1, rel=0.4)


def test_a_flat_image_has_no_noise_and_units_do_not_matter():
    assert estimate_noise(torch.full((3, 64, 64), 0.3)) == pytest.approx(0, abs=1e-7)
    image = noisy(photo(64), 0.05)
    assert estimate_noise(4 * image) == pytest.approx(4 * estimate_noise(image), rel=1e-5)


def test_three_equal_channels_count_as_one():
    grey = noisy(photo().mean(0, keepdim=True), 0.1)
    assert estimate_noise(grey.expand(3, -1, -1)) == estimate_noise(grey)


@pytest.mark.parametrize("quality", [95, 80])
def test_jpeg_smooths_colour_noise_and_leaves_that_of_luma(tmp_path, quality):
    image = noisy(photo(), 0.1)
    pixels = (image.clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=quality, subsampling=2)
    compressed = read_image(tmp_path / "a.jpg")
    true = float((compressed - photo()).square().mean().sqrt())
    assert true < 0.08  # of 0.1
    assert estimate_noise(compressed) == pytest.approx(true, rel=0.2)


def test_large_images_are_sampled():
    image = torch.zeros(3, 1000, 1500) + torch.linspace(0, 1, 1500)
    assert estimate_noise(noisy(image, 0.05)) == pytest.approx(0.05, rel=0.05)


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(ShapeError, match="give an image"):
        estimate_noise(torch.zeros(3, 100))
    with pytest.raises(ShapeError, match="mask of the image's size"):
        estimate_noise(torch.zeros(3, 9, 9), torch.ones(1, 8, 9))
    with pytest.raises(NonFiniteError):
        estimate_noise(torch.full((1, 9, 9), torch.nan))
    with pytest.raises(OptionError, match="give its level"):
        estimate_noise(torch.zeros(1, 1, 500))
