"""Operators with differentiable parameters: they are their fixed counterparts, and the gradients are right."""

import pytest
import torch

from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.operators import Deblurring, Inpainting, ParametricBlur, SoftMask, motion_kernel


def images(seed=0):
    return torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_parametric_blur_is_the_circular_deblurring_of_its_kernel():
    kernel, x = motion_kernel(5, 30), images()
    ours, fixed = ParametricBlur(kernel, 0.1), Deblurring(kernel, threshold=0.1)
    for name in ("forward", "adjoint", "pinv", "range_projection"):
        torch.testing.assert_close(getattr(ours, name)(x), getattr(fixed, name)(x), rtol=1e-10, atol=1e-10)


def test_a_soft_mask_of_zeros_and_ones_is_inpainting():
    mask, x = images()[0, 0] > 0.5, images(1)
    ours, fixed = SoftMask(mask.double()), Inpainting(mask)
    for name in ("forward", "adjoint", "pinv", "range_projection"):
        torch.testing.assert_close(getattr(ours, name)(x), getattr(fixed, name)(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["forward", "adjoint", "pinv", "range_projection"])
def test_gradients_of_the_parameters_are_those_of_finite_differences(name):
    x = images(2)
    kernel = torch.tensor([[0.1, 0.5, -0.1], [0.2, 0.9, 0.3]], dtype=torch.float64, requires_grad=True)
    weights = (images(3)[0, 0] + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda k: getattr(ParametricBlur(k), name)(x), kernel)
    assert torch.autograd.gradcheck(lambda w: getattr(SoftMask(w), name)(x), weights)


def test_no_gradient_is_nan_where_frequencies_or_pixels_are_lost():
    box = torch.full((4, 4), 1 / 16, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(8, 4).requires_grad_()
    loss = ParametricBlur(box).pinv(images()).square().sum() + SoftMask(weights).pinv(images()).square().sum()
    loss.backward()
    assert box.grad.isfinite().all()
    assert weights.grad.isfinite().all()
    assert box.grad.any()
    assert weights.grad.any()


def test_what_cannot_be_an_operator_is_refused_in_one_sentence():
    with pytest.raises(ShapeError, match="give one of shape"):
        ParametricBlur(torch.ones(3))
    with pytest.raises(ShapeError, match="larger than the image"):
        ParametricBlur(torch.ones(9, 9)).forward(images())
    with pytest.raises(OptionError, match="threshold"):
        ParametricBlur(torch.ones(3, 3), 1.5)
    with pytest.raises(NonFiniteError, match="kernel"):
        ParametricBlur(torch.full((3, 3), torch.nan))
    with pytest.raises(ShapeError, match="soft mask"):
        SoftMask(torch.ones(2, 1, 8, 8))
    with pytest.raises(ShapeError, match="image's size"):
        SoftMask(torch.ones(4, 8)).forward(images())
    with pytest.raises(OptionError, match="zero everywhere"):
        SoftMask(torch.zeros(8, 8))
    with pytest.raises(NonFiniteError, match="soft mask"):
        SoftMask(torch.full((8, 8), torch.inf))


def test_a_soft_mask_of_every_channel_fits_images_of_as_many():
    weights = torch.linspace(-1, 1, 48, dtype=torch.float64)
    for shape in ((3, 4, 4), (1, 3, 4, 4)):
        assert SoftMask(weights.view(shape)).at((3, 4, 4)).acts_per_channel is False
        with pytest.raises(ShapeError, match="the image is"):
            SoftMask(weights.view(shape)).at((2, 4, 4))
    assert SoftMask(weights[:16].view(4, 4)).at((2, 4, 4)).acts_per_channel
