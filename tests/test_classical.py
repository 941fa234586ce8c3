"""The classical restorers: exact cases, alignment, and inputs that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deqir.classical import (
    bicubic_upsampling,
    biharmonic_inpainting,
    grey_colorization,
    non_local_means,
    wiener_deconvolution,
)
from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.metrics import psnr


def smooth(batch: int = 2, channels: int = 3, height: int = 32, width: int = 31) -> Tensor:
    """Smooth periodic images, each of its own."""
    rows = torch.arange(height)[:, None] / height * 2 * torch.pi
    columns = torch.arange(width)[None] / width * 2 * torch.pi
    planes = [0.5 + 0.2 * torch.sin(rows + i) + 0.2 * torch.cos(2 * columns - i) for i in range(batch * channels)]
    return torch.stack(planes).reshape(batch, channels, height, width)


def circular_blur(x: Tensor, kernel: Tensor) -> Tensor:
    """The plain sum that defines a circular convolution centred at (h // 2, w // 2)."""
    height, width = kernel.shape
    shifted = [
        kernel[i, j] * x.roll((i - height // 2, j - width // 2), (2, 3)) for i in range(height) for j in range(width)
    ]
    return torch.stack(shifted).sum(0)


class TestBicubic:
    def test_a_ramp_keeps_its_place(self) -> None:
        ramp = torch.linspace(0.1, 0.9, 32, dtype=torch.float64).expand(1, 1, 32, 32)
        small = torch.nn.functional.avg_pool2d(ramp, 4)
        large = bicubic_upsampling(small, 4, (32, 32))
        step = 0.8 / 31  # torch's kernel bends a ramp by a sixth of a step; half a pixel off would be half a step
        torch.testing.assert_close(large[..., 12:20], ramp[..., 12:20], atol=0.2 * step, rtol=0)

    @pytest.mark.parametrize("size", [(29, 30), (32, 32), (34, 35)])
    def test_sizes_that_are_no_multiple_do_not_shift(self, size: tuple[int, int]) -> None:
        small = smooth(height=8, width=8)
        large = bicubic_upsampling(small, 4, size)
        assert large.shape == (2, 3, *size)
        torch.testing.assert_close(large[..., :20, :20], bicubic_upsampling(small, 4, (32, 32))[..., :20, :20])

    def test_range_and_identity(self) -> None:
        checks = torch.eye(6).expand(1, 3, 6, 6)
        large = bicubic_upsampling(checks, 3, (18, 18))
        assert large.min() == 0 and large.max() == 1
        torch.testing.assert_close(bicubic_upsampling(checks, 1, (6, 6)), checks)

    @pytest.mark.parametrize(("scale", "size"), [(4, (64, 32)), (0, (8, 8)), (4, (28, 32))])
    def test_impossible_sizes(self, scale: int, size: tuple[int, int]) -> None:
        with pytest.raises(ShapeError, match="check scale and size"):
            bicubic_upsampling(smooth(height=8, width=8), scale, size)


class TestInpainting:
    def test_each_image_is_filled_with_its_own_mask(self) -> None:
        x = smooth()
        mask = (torch.rand(2, 1, 32, 31, generator=torch.Generator().manual_seed(0)) > 0.4).float()
        restored = biharmonic_inpainting(x * mask, mask)
        kept = mask.bool().expand_as(x)
        assert torch.equal(restored[kept], x[kept])
        assert restored.dtype == x.dtype and psnr(restored, x).min() > 45
        torch.testing.assert_close(biharmonic_inpainting(x[1:] * mask[1:], mask[1:]), restored[1:])

    def test_one_mask_for_all_and_nothing_hidden(self) -> None:
        x = smooth(channels=1)
        mask = torch.ones(1, 1, 32, 31)
        assert torch.equal(biharmonic_inpainting(x, mask), x)
        mask[..., 10:13, 10:13] = 0
        assert psnr(biharmonic_inpainting(x * mask, mask), x).min() > 45

    def test_masks_that_do_not_fit(self) -> None:
        x = smooth()
        for shape in ((1, 1, 32, 32), (3, 1, 32, 31), (1, 3, 32, 31), (32, 31)):
            with pytest.raises(ShapeError, match="mask"):
                biharmonic_inpainting(x, torch.ones(shape))
        with pytest.raises(OptionError, match="other than 0 and 1"):
            biharmonic_inpainting(x, torch.full((1, 1, 32, 31), 0.5))
        with pytest.raises(OptionError, match="nothing is observed"):
            biharmonic_inpainting(x, torch.stack([torch.ones(1, 32, 31), torch.zeros(1, 32, 31)]))


class TestWiener:
    @pytest.mark.parametrize("shape", [(5, 5), (4, 6), (3, 8), (1, 1), (32, 16)])
    def test_no_shift_for_any_kernel(self, shape: tuple[int, int]) -> None:
        """The last shape is that of a half spectrum, which scikit-image would mistake for one."""
        kernel = torch.zeros(shape, dtype=torch.float64)
        kernel[0, 0] += 0.2
        kernel[shape[0] // 2, shape[1] // 2] += 0.7
        kernel[-1, shape[1] // 3] += 0.1
        x = torch.rand(2, 3, 32, 31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        restored = wiener_deconvolution(circular_blur(x, kernel), kernel, balance=1e-9)
        assert psnr(restored, x).min() > 60

    def test_default_undoes_a_gaussian_blur(self) -> None:
        profile = torch.exp(-(torch.arange(-2, 3) ** 2) / 2)
        kernel = torch.outer(profile, profile)
        kernel /= kernel.sum()
        x = smooth()
        y = circular_blur(x, kernel)
        restored = wiener_deconvolution(y, kernel)
        assert restored.dtype == torch.float32 and restored.min() >= 0 and restored.max() <= 1
        assert psnr(restored, x).min() > 50 > psnr(y, x).min()

    def test_kernels_that_do_not_fit(self) -> None:
        x = smooth()
        for shape in ((5,), (33, 5), (5, 32)):
            with pytest.raises(ShapeError, match="no larger than the image"):
                wiener_deconvolution(x, torch.ones(shape))
        for kernel in (torch.zeros(3, 3), torch.full((3, 3), torch.nan)):
            with pytest.raises(OptionError, match="kernel"):
                wiener_deconvolution(x, kernel)
        for balance in (0.0, -1.0, float("nan")):
            with pytest.raises(OptionError, match="positive"):
                wiener_deconvolution(x, torch.ones(3, 3), balance)
        with pytest.raises(ShapeError, match="3 x 3"):
            wiener_deconvolution(x[..., :2], torch.ones(1, 1))


def test_grey_becomes_three_equal_channels() -> None:
    grey = smooth(channels=1)
    colour = grey_colorization(grey)
    assert colour.shape == (2, 3, 32, 31)
    assert all(torch.equal(colour[:, c], grey[:, 0]) for c in range(3))
    with pytest.raises(ShapeError, match="one channel"):
        grey_colorization(smooth())


def test_every_restorer_refuses_bad_batches() -> None:
    mask, kernel = torch.ones(1, 1, 8, 8), torch.ones(3, 3) / 9
    for restore in (
        lambda y: bicubic_upsampling(y, 1, (8, 8)),
        lambda y: biharmonic_inpainting(y, mask),
        lambda y: wiener_deconvolution(y, kernel),
        grey_colorization,
    ):
        with pytest.raises(ShapeError, match=r"\(B, C, H, W\)"):
            restore(torch.rand(1, 8, 8))
        with pytest.raises(ShapeError):
            restore(torch.rand(0, 1, 8, 8))
        with pytest.raises(NonFiniteError, match="NaN"):
            restore(torch.full((1, 1, 8, 8), torch.nan))


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 1, 1, 1), (1, 3, 1, 5)])
def test_non_local_means_keeps_the_shape_of_the_smallest_images(shape):
    assert non_local_means(torch.rand(shape), 0.1).shape == shape
