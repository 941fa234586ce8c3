import pytest
import torch

from deqir.errors import OptionError, ShapeError
from deqir.operators import Inpainting


def images(count=2, channels=3, height=5, width=6):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(3))


def bits(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(4)) > 0.5


@pytest.mark.parametrize("shape", [(5, 6), (3, 5, 6), (1, 5, 6), (1, 1, 5, 6), (2, 1, 5, 6), (2, 3, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float16])
def test_holes_are_zero(shape, dtype):
    mask, x = bits(*shape), images()
    for operation in ("forward", "adjoint", "pinv", "range_projection"):
        torch.testing.assert_close(getattr(Inpainting(mask.to(dtype)), operation)(x), x * mask)


def test_what_lies_in_the_holes_is_ignored():
    mask = bits(5, 6)
    y = images().masked_fill(~mask, float("nan"))
    operator = Inpainting(mask)
    assert operator.pinv(y).isfinite().all()
    assert operator.U_adjoint(y).isfinite().all()


def test_repeated_lays_masks_out_as_repeat_does():
    mask, x = bits(2, 1, 5, 6), images()
    operator = Inpainting(mask).repeated(3)
    many = torch.cat([x, 2 * x, 3 * x])
    expected = many * mask.repeat(3, 1, 1, 1)
    torch.testing.assert_close(operator.forward(many), expected)
    torch.testing.assert_close(operator.singular_values(many), mask.repeat(3, 1, 1, 1).float())
    torch.testing.assert_close(Inpainting(mask).repeated(3).repeated(2).forward(many.repeat(2, 1, 1, 1))[6:], expected)
    assert Inpainting(mask).forward(x).shape == x.shape


def test_one_mask_serves_any_batch():
    operator = Inpainting(bits(5, 6))
    assert operator.repeated(4) is operator
    assert operator.forward(images(7)).shape == (7, 3, 5, 6)


def test_the_mask_is_copied():
    mask = torch.ones(5, 6)
    operator = Inpainting(mask)
    mask.zero_()
    assert operator.mask.all()


def test_errors():
    with pytest.raises(OptionError, match="values other than 0 and 1"):
        Inpainting(torch.full((5, 6), 0.5))
    with pytest.raises(OptionError, match="values other than 0 and 1"):
        Inpainting(torch.full((5, 6), 255, dtype=torch.uint8))
    with pytest.raises(OptionError, match="values other than 0 and 1"):
        Inpainting(torch.full((5, 6), float("nan")))
    with pytest.raises(OptionError, match="nothing observed"):
        Inpainting(torch.zeros(5, 6))
    with pytest.raises(OptionError, match="nothing observed"):
        Inpainting(torch.stack([torch.ones(1, 5, 6), torch.zeros(1, 5, 6)]))
    with pytest.raises(ShapeError, match=r"the mask has shape \(6,\)"):
        Inpainting(torch.ones(6))
    with pytest.raises(ShapeError, match="the mask is 5x6 but the image is 6x5"):
        Inpainting(bits(5, 6)).forward(images(height=6, width=5))
    with pytest.raises(ShapeError, match="the mask is 5x6 but the image is 6x5"):
        Inpainting(bits(5, 6)).at((3, 6, 5))
    with pytest.raises(ShapeError, match="mask has 3 channels but the image 1"):
        Inpainting(bits(3, 5, 6)).forward(images(channels=1))
    with pytest.raises(ShapeError, match="for a batch of 2 but the batch has 3"):
        Inpainting(bits(2, 1, 5, 6)).forward(images(3))
    with pytest.raises(ShapeError, match="for a batch of 6 but the batch has 3"):
        Inpainting(bits(2, 1, 5, 6)).repeated(3).forward(images(3))
    with pytest.raises(OptionError, match="count is 0"):
        Inpainting(bits(2, 1, 5, 6)).repeated(0)
    with pytest.raises(ShapeError, match=r"\(5, 6\)"):
        Inpainting(bits(5, 6)).image_shape((5, 6))
