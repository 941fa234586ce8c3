"""Metrics against their formulas and against scikit-image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from deqir.errors import NonFiniteError, ShapeError
from deqir.metrics import measurement_error, psnr, ssim

Metric = Callable[[Tensor, Tensor], Tensor]


def pair(batch: int = 3, channels: int = 3, height: int = 20, width: int = 17) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(batch, channels, height, width, generator=generator)
    noise = torch.randn(a.shape, generator=generator) * torch.tensor([0.01, 0.1, 0.4])[:batch, None, None, None]
    return a, a + noise  # beyond [0, 1]: nothing is clamped


def test_psnr_is_its_formula() -> None:
    a, b = pair()
    expected = -10 * (a - b).double().square().mean((1, 2, 3)).log10()
    assert psnr(a, b).dtype == torch.float32
    torch.testing.assert_close(psnr(a, b).double(), expected, rtol=1e-6, atol=0)
    black, white = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    assert psnr(black, white).tolist() == [0.0]
    assert psnr(black, black + 0.1).item() == pytest.approx(20)


def test_equal_images() -> None:
    a, _ = pair()
    assert psnr(a, a).tolist() == [math.inf] * 3
    torch.testing.assert_close(ssim(a, a), torch.ones(3))
    assert measurement_error(a, a).tolist() == [0, 0, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(channels: int) -> None:
    """scikit-image leaves out a border of 5 pixels, which mirroring the images by 5 beforehand makes up for."""
    from skimage.metrics import structural_similarity

    a, b = pair(channels=channels)
    options: dict[str, Any] = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "channel_axis": 0,
    }
    wide_a, wide_b = (torch.nn.functional.pad(x.double(), (5, 5, 5, 5), mode="reflect").numpy() for x in (a, b))
    expected = [structural_similarity(x, y, data_range=1.0, **options) for x, y in zip(wide_a, wide_b, strict=True)]
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-5)
    assert ssim(a.double(), b.double()).dtype == torch.float64


@pytest.mark.parametrize("side", [3, 4, 5, 8, 10, 11])
def test_ssim_of_small_images(side: int) -> None:
    a, b = pair(height=side)
    value = ssim(a, b)
    assert value.shape == (3,) and value.isfinite().all()
    assert (value.diff() < 0).all()  # more noise, less similar
    torch.testing.assert_close(ssim(a, a), torch.ones(3))


def test_one_image_of_a_batch_does_not_change_another() -> None:
    a, b = pair()
    for metric in (psnr, ssim, measurement_error):
        torch.testing.assert_close(metric(a, b)[1:2], metric(a[1:2], b[1:2]))


def test_half_precision_is_compared_in_full() -> None:
    a, b = pair()
    a, b = a.half(), b.half()
    torch.testing.assert_close(psnr(a, b), psnr(a.float(), b.float()))
    torch.testing.assert_close(ssim(a, b), ssim(a.float(), b.float()))


def test_measurement_error_is_the_root_mean_square() -> None:
    y = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    torch.testing.assert_close(measurement_error(y, torch.zeros(2, 2)), torch.tensor([12.5, 0.5]).sqrt())


@pytest.mark.parametrize("metric", [psnr, ssim, measurement_error])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_non_finite_values_are_never_a_figure(metric: Metric, value: float) -> None:
    a, b = pair()
    b[1, 0, 0, 0] = value
    for first, second in ((a, b), (b, a), (b, b)):
        with pytest.raises(NonFiniteError, match="NaN or infinite"):
            metric(first, second)


@pytest.mark.parametrize("metric", [psnr, ssim, measurement_error])
def test_shapes_that_do_not_fit(metric: Metric) -> None:
    a, b = pair()
    with pytest.raises(ShapeError, match="make them the same"):
        metric(a, b[:1])
    with pytest.raises(ShapeError, match="nothing to compare"):
        metric(a[:0], b[:0])
    with pytest.raises(ShapeError, match="shape"):
        metric(a[0, 0, 0], b[0, 0, 0])


def test_only_batches_of_images_have_psnr_and_ssim() -> None:
    a, b = pair()
    for metric in (psnr, ssim):
        with pytest.raises(ShapeError, match=r"\(B, C, H, W\)"):
            metric(a[0], b[0])
    with pytest.raises(ShapeError, match="3 x 3"):
        ssim(a[..., :2], b[..., :2])
