import pytest
import torch

from deqir.errors import OptionError, ShapeError
from deqir.operators import Colorization, Denoising

WEIGHTS = {"mean": (1 / 3, 1 / 3, 1 / 3), "luma": (0.299, 0.587, 0.114), (1, 2, -0.5): (1.0, 2.0, -0.5)}


@pytest.mark.parametrize("name", WEIGHTS)
def test_closed_form(name):
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    w = torch.tensor(WEIGHTS[name], dtype=torch.float64).reshape(1, 3, 1, 1)
    operator, y = Colorization(name), (w * x).sum(1, keepdim=True)
    torch.testing.assert_close(operator.forward(x), y)
    torch.testing.assert_close(operator.adjoint(y), w * y)
    torch.testing.assert_close(operator.pinv(y), w * y / w.square().sum())


def test_shapes():
    assert Colorization().image_shape((1, 4, 5)) == (3, 4, 5)
    with pytest.raises(ShapeError, match="1 channels; give one with 3"):
        Colorization().forward(torch.rand(1, 1, 4, 4))
    with pytest.raises(ShapeError, match=r"\(3, 4, 4\)"):
        Colorization().pinv(torch.rand(1, 3, 4, 4))
    with pytest.raises(ShapeError, match="1 channels"):
        Colorization().at((1, 4, 4))
    with pytest.raises(ShapeError, match=r"\(4, 4\)"):
        Denoising().image_shape((4, 4))


@pytest.mark.parametrize("weights", ["sepia", (0, 0, 0), (1, 2), (1, 2, float("nan"))])
def test_weights_that_make_no_sense(weights):
    with pytest.raises(OptionError, match="the weights are"):
        Colorization(weights)
