"""The restorer with operators that are not built in: compositions, functions, matrices."""

import numpy as np
import pytest
import scipy.sparse
import torch

from conftest import SHAPE, SmoothDenoiser
from deqir.errors import OptionError, ShapeError
from deqir.operators import Colorization, Inpainting, SuperResolution, as_operator, from_function
from deqir.restoration import Restorer
from deqir.solvers import Status

MATRIX = np.random.default_rng(0).normal(size=(40, 192))
GREY_MATRIX = np.random.default_rng(0).normal(size=(20, 64))
MASK = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) > 0.4

OPERATORS = {
    "old-photo": (Colorization() @ Inpainting(MASK) @ SuperResolution(2), SHAPE, 1e-9),
    "masked-bicubic": (Inpainting(MASK) @ SuperResolution(2, "bicubic"), SHAPE, 1e-5),
    "matrix": (as_operator(MATRIX, SHAPE), SHAPE, 1e-9),
    "sparse": (as_operator(scipy.sparse.csr_array(MATRIX), SHAPE), SHAPE, 1e-5),
    "function": (from_function(lambda x: x[..., ::2] - 0.5 * x[..., 1::2], SHAPE), SHAPE, 1e-5),
    "grey-matrix": (as_operator(GREY_MATRIX, (1, 8, 8)), (1, 8, 8), 1e-9),
    "grey-function": (from_function(lambda x: x[..., ::2] - 0.5 * x[..., 1::2], (1, 8, 8)), (1, 8, 8), 1e-5),
    "grey-composed": (Inpainting(MASK) @ SuperResolution(2), (1, 8, 8), 1e-9),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("solver", ["serial", "picard"])
def test_the_restored_image_agrees_with_the_observation(name, solver):
    operator, shape, tolerance = OPERATORS[name]
    truth = torch.rand(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = operator.at(shape).forward(truth)
    result = Restorer(SmoothDenoiser(), operator, steps=5, solver=solver, dtype="float64").restore(y)
    assert result.image.shape == truth.shape and result.status == (Status.CONVERGED,) * 2
    assert bool((result.measurement_error < tolerance * y.flatten(1).norm(dim=1)).all())
    alone = Restorer(SmoothDenoiser(), operator, steps=5, solver="serial", dtype="float64").restore(y[1:], seed=1)
    torch.testing.assert_close(result.image[1:], alone.image, rtol=1e-4, atol=1e-4 if tolerance > 1e-6 else 1e-9)


@pytest.mark.parametrize("name", ["old-photo", "matrix", "grey-matrix", "grey-composed"])
def test_noise_is_handled_where_the_operator_is_decomposed(name):
    operator, shape, _ = OPERATORS[name]
    truth = torch.rand(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = operator.at(shape).forward(truth)
    y = y + 0.1 * torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    restorer = Restorer(SmoothDenoiser(), operator, steps=5, noise=0.1, solver="serial", dtype="float64")
    result = restorer.restore(y)
    assert bool(result.image.isfinite().all())
    assert 0 < float(result.measurement_error) < 1


def test_what_does_not_tell_its_shape_is_refused():
    with pytest.raises(OptionError, match="a matrix does not tell the shape of its images"):
        Restorer(SmoothDenoiser(), MATRIX)


def test_measurements_of_another_number_are_refused():
    with pytest.raises(ShapeError, match=r"give one of \(40,\), a number for each row"):
        Restorer(SmoothDenoiser(), OPERATORS["matrix"][0]).restore(torch.rand(2, 39))
