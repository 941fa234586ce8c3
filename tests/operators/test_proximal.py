import pytest
import torch

from conftest import SHAPE, all_operators
from deqir.operators import from_function
from deqir.operators.proximal import data_proximal

OPERATORS = all_operators()


@pytest.mark.parametrize("name", OPERATORS)
def test_it_is_where_the_gradient_vanishes(name):
    """``A^T (A z - y) + weight (z - x) = 0`` at the minimum; at weight 0 it is the limit."""
    operator, generator = OPERATORS[name], torch.Generator().manual_seed(0)
    x = torch.randn(2, *SHAPE, dtype=torch.float64, generator=generator)
    seen = operator.forward(x)
    y = seen + torch.randn(seen.shape, dtype=torch.float64, generator=generator)
    for weight in (0.3, 4.0):
        z = data_proximal(operator, y, x, weight)
        slope = operator.adjoint(operator.forward(z) - y) + weight * (z - x)
        torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)
    limit = data_proximal(operator, y, x, 0)
    torch.testing.assert_close(limit, x + operator.pinv(y - seen), rtol=1e-9, atol=1e-9)
    again = operator.adjoint(operator.forward(limit) - y)
    torch.testing.assert_close(again, torch.zeros_like(again), rtol=0, atol=1e-8)


def test_without_a_decomposition_it_is_the_same_to_the_tolerance():
    operator, generator = OPERATORS["sr"], torch.Generator().manual_seed(1)
    x = torch.randn(2, *SHAPE, dtype=torch.float64, generator=generator)
    y = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)
    iterated = from_function(operator.forward, SHAPE)
    for tolerance in (1e-3, 1e-8):
        off = data_proximal(iterated, y, x, 0.2, tolerance) - data_proximal(operator, y, x, 0.2)
        assert off.abs().max() <= 30 * tolerance
