import pytest
import torch

from conftest import SHAPE, SmoothDenoiser, all_operators, noises_of, observation_of
from deqir import operators
from deqir.chain import SamplingChain
from deqir.consistency import DDNM, DDNMPlus
from deqir.equilibrium import solve_equilibrium
from deqir.errors import OptionError
from deqir.operators import LinearOperator
from deqir.preconditioner import BandedSecant
from deqir.schedule import NoiseSchedule
from deqir.solvers import Picard

OPERATORS = all_operators()
LEVELS = NoiseSchedule.linear().levels(10)


def dense_step(operator, y, sigma, eta, i, x, e, z):
    """The rule in the full singular basis of the dense matrix, as the paper's appendix writes it."""
    matrix = operator.as_matrix(SHAPE)
    U, s, Vt = torch.linalg.svd(matrix, full_matrices=True)
    full = torch.zeros(Vt.shape[0], dtype=torch.float64)
    full[: len(s)] = torch.where(s > 1e-9, s, 0)
    a, a_next = LEVELS.alphas[i], LEVELS.alphas[i + 1]
    level = (1 - a_next).sqrt()
    clean = Vt @ ((x - (1 - a).sqrt() * e) / a.sqrt())
    measured = torch.zeros_like(full)
    measured[: len(s)] = (U.T @ y)[: len(s)]
    result = torch.empty_like(full)
    ve, vz = Vt @ e, Vt @ z
    for k, value in enumerate(full.tolist()):
        if value == 0:
            result[k] = a_next.sqrt() * clean[k] + level * ((1 - eta**2) ** 0.5 * ve[k] + eta * vz[k])
            continue
        brought = a_next.sqrt() * sigma / value
        target = measured[k] / value
        if brought <= level:
            result[k] = a_next.sqrt() * target + (level**2 - brought**2).sqrt() * vz[k]
        else:
            weight = value * level * (1 - eta**2) ** 0.5 / (a_next.sqrt() * sigma)
            result[k] = a_next.sqrt() * (clean[k] + weight * (target - clean[k])) + eta * level * vz[k]
    return Vt.T @ result


@pytest.mark.parametrize("sigma", [0.02, 0.5, 3.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_step_is_the_papers_in_the_singular_basis(name, sigma):
    operator = OPERATORS[name]
    y = observation_of(operator, sigma, images=1)
    step = DDNMPlus(sigma, 0.85).bind(operator, y, LEVELS, noises_of(1))
    generator = torch.Generator().manual_seed(2)
    for i in (0, 5, 9):
        x, e = (torch.randn(1, *SHAPE, dtype=torch.float64, generator=generator) for _ in range(2))
        expected = dense_step(operator, y.flatten(), sigma, 0.85, i, x.flatten(), e.flatten(), step.noises[i].flatten())
        torch.testing.assert_close(step(i, x, e).flatten(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_next_state_has_exactly_its_variance(name):
    """In every direction that A sees, the noise that y brings and the fresh noise add up to 1 - a."""
    sigma, eta = 0.3, 0.85
    operator = OPERATORS[name]
    step = DDNMPlus(sigma, eta).bind(operator, observation_of(operator, sigma), LEVELS, noises_of(2))
    s = operator.singular_values(step.observed)
    for a in LEVELS.alphas[1:].tolist():
        weights, fresh, seen = step.weights(a)
        brought = a**0.5 * weights * sigma / torch.where(seen, s, 1)
        total = (brought**2 + fresh**2)[seen.expand_as(fresh)]
        torch.testing.assert_close(total, torch.full_like(total, 1 - a), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OPERATORS)
def test_parallel_equals_serial(name):
    operator = OPERATORS[name]
    denoiser, noise = SmoothDenoiser(), noises_of(2)
    step = DDNMPlus(0.2).bind(operator, observation_of(operator, 0.2), LEVELS, noise)
    chain = SamplingChain(denoiser, step, noise.initial)
    serial = chain.sample()
    for preconditioner in (None, BandedSecant()):
        solution = solve_equilibrium(chain, Picard(), tolerance=0.0, preconditioner=preconditioner)
        torch.testing.assert_close(solution.value, serial, rtol=1e-9, atol=1e-9)


def test_the_noise_of_an_observation_is_removed():
    """White Gaussian images, their exact denoiser: the error must fall well below the observation's."""
    denoiser = SmoothDenoiser()
    generator = torch.Generator().manual_seed(0)
    truth = 0.1 * torch.randn(2, *SHAPE, dtype=torch.float64, generator=generator)
    denoiser.variance = 0.01
    y = truth + 0.4 * torch.randn(truth.shape, dtype=torch.float64, generator=generator)
    noise = noises_of(2)
    errors = []
    for rule in (DDNMPlus(0.4), DDNM()):
        chain = SamplingChain(denoiser, rule.bind(operators.Denoising(), y, LEVELS, noise), noise.initial)
        errors.append(float((chain.sample() - truth).square().mean().sqrt()))
    assert errors[0] < 0.5 * errors[1]


class Opaque(LinearOperator):
    def forward(self, x):
        return x

    adjoint = pinv = forward

    def image_shape(self, observation_shape):
        return observation_shape


def test_what_the_rule_needs():
    y = torch.zeros(1, *SHAPE)
    with pytest.raises(OptionError, match="Opaque has no known singular values"):
        DDNMPlus(0.1).bind(Opaque(), y, LEVELS, noises_of(2))
    with pytest.raises(OptionError, match="no noises are given"):
        DDNMPlus(0.1).bind(operators.Denoising(), y, LEVELS, None)
    for sigma in (-0.1, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="noise level is"):
            DDNMPlus(sigma)
