import pytest
import torch

from conftest import SHAPE, SmoothDenoiser, all_operators, noises_of, observation_of
from deqir import operators
from deqir.chain import SamplingChain
from deqir.consistency import DDNM, DiffPIR
from deqir.errors import OptionError
from deqir.operators import LinearOperator
from deqir.schedule import NoiseSchedule

OPERATORS = all_operators()
LEVELS = NoiseSchedule.linear().levels(10)
DOUBLE = torch.float64


class Opaque(LinearOperator):
    """An operator of which only the matrix products are known."""

    def __init__(self, inner):
        self.inner = inner

    def forward(self, x):
        return self.inner.forward(x)

    def adjoint(self, y):
        return self.inner.adjoint(y)

    def pinv(self, y):
        raise AssertionError("conjugate gradients must do without a pseudo-inverse")

    def image_shape(self, observation_shape):
        return self.inner.image_shape(observation_shape)


def papers_step(operator, y, rule, i, x, e, z):
    """Algorithm 1 with the proximal step solved by the normal equations of the dense matrix."""
    matrix = operator.as_matrix(SHAPE)
    a, a_next = LEVELS.alphas[i], LEVELS.alphas[i + 1]
    sigma = ((1 - a) / a).sqrt()
    clean = (x - (1 - a).sqrt() * e) / a.sqrt()
    rho = rule.lambda_ * rule.sigma_y**2 / sigma**2
    normal = matrix.T @ matrix + rho * torch.eye(len(x), dtype=DOUBLE)
    corrected = torch.linalg.solve(normal, matrix.T @ y + rho * clean)
    effective = (x - a.sqrt() * corrected) / (1 - a).sqrt()
    renoised = (1 - rule.zeta) ** 0.5 * effective + rule.zeta**0.5 * z
    return a_next.sqrt() * corrected + (1 - a_next).sqrt() * renoised


@pytest.mark.parametrize("rule", [DiffPIR(0.2, 1.0, 0.3), DiffPIR(0.7, 4.0, 1.0), DiffPIR(2.0, 0.5, 0.0)])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_step_is_the_papers(name, rule):
    operator = OPERATORS[name]
    y = observation_of(operator, rule.sigma_y, images=1)
    step = rule.bind(operator, y, LEVELS, noises_of(1))
    generator = torch.Generator().manual_seed(2)
    for i in (0, 5, 9):
        x, e = (torch.randn(1, *SHAPE, dtype=DOUBLE, generator=generator) for _ in range(2))
        z = noises_of(1)[i].flatten()
        expected = papers_step(operator, y.flatten(), rule, i, x.flatten(), e.flatten(), z)
        torch.testing.assert_close(step(i, x, e).flatten(), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_without_singular_values_takes_conjugate_gradients(name):
    rule = DiffPIR(0.3, tolerance=1e-12)
    y, noise = observation_of(OPERATORS[name], 0.3), noises_of(2)
    steps = [rule.bind(operator, y, LEVELS, noise) for operator in (OPERATORS[name], Opaque(OPERATORS[name]))]
    answers = [SamplingChain(SmoothDenoiser(), step, noise.initial).sample() for step in steps]
    torch.testing.assert_close(*answers, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", OPERATORS)
def test_without_noise_the_correction_is_ddnms(name):
    y = observation_of(OPERATORS[name], 0.0)
    generator = torch.Generator().manual_seed(2)
    x, e = (torch.randn(2, *SHAPE, dtype=DOUBLE, generator=generator) for _ in range(2))
    exact, limit, theirs = (
        rule.bind(OPERATORS[name], y, LEVELS, noises_of(2)).parts(4, x, e)[0]
        for rule in (DiffPIR(0.0), DiffPIR(1e-6), DDNM())
    )
    torch.testing.assert_close(exact, theirs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(limit, theirs, rtol=1e-6, atol=1e-6)


def test_needs_noise_only_where_it_draws_some():
    y = torch.zeros(1, *SHAPE)
    assert not DiffPIR(0.1, zeta=0.0).needs_noise
    DiffPIR(0.1, zeta=0.0).bind(operators.Denoising(), y, LEVELS, None)
    with pytest.raises(OptionError, match=r"DiffPIR with zeta 0\.3 needs the noise"):
        DiffPIR(0.1, zeta=0.3).bind(operators.Denoising(), y, LEVELS, None)


@pytest.mark.parametrize(
    "settings", [{"sigma_y": -1.0}, {"lambda_": 0.0}, {"zeta": 1.1}, {"tolerance": 0.0}, {"max_iterations": 0}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(OptionError):
        DiffPIR(**{"sigma_y": 0.1} | settings)
