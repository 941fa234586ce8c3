import pytest
import torch

from conftest import SHAPE, SmoothDenoiser, all_operators, noises_of, observation_of
from deqir.chain import SamplingChain
from deqir.consistency import DDNM, DDRM, DDNMPlus
from deqir.errors import OptionError
from deqir.schedule import NoiseSchedule

OPERATORS = all_operators()
LEVELS = NoiseSchedule.linear().levels(10)
DOUBLE = torch.float64


def full_basis(operator):
    """The full SVD of the dense matrix: U, s padded with zeros to the image's size, V^T."""
    U, s, Vt = torch.linalg.svd(operator.as_matrix(SHAPE), full_matrices=True)
    values = torch.zeros(len(Vt), dtype=DOUBLE)
    values[: len(s)] = torch.where(s > 1e-9, s, 0)
    return U, values, Vt


def papers_step(operator, y, rule, i, x, e, z):
    """Eq. 8 as the paper writes it, in its own scale (x / sqrt(a), sigma = sqrt((1 - a) / a)), then back."""
    U, s, Vt = full_basis(operator)
    a, a_next = LEVELS.alphas[i], LEVELS.alphas[i + 1]
    sigma, sigma_next = ((1 - a) / a).sqrt(), ((1 - a_next) / a_next).sqrt()
    state = Vt @ x / a.sqrt()
    clean = state - sigma * (Vt @ e)
    z = Vt @ z
    padded = torch.zeros_like(s)
    padded[: U.shape[1]] = (U.T @ y)[: len(s)]
    kept = (1 - rule.eta**2) ** 0.5
    result = torch.empty_like(s)
    for k, value in enumerate(s.tolist()):
        if value == 0:
            mean, std = clean[k] + kept * sigma_next * (state[k] - clean[k]) / sigma, rule.eta * sigma_next
        elif sigma_next < rule.sigma_y / value:
            step = sigma_next * (padded[k] / value - clean[k]) / (rule.sigma_y / value)
            mean, std = clean[k] + kept * step, rule.eta * sigma_next
        else:
            mean = (1 - rule.eta_b) * clean[k] + rule.eta_b * padded[k] / value
            std = (sigma_next**2 - (rule.sigma_y / value) ** 2 * rule.eta_b**2).sqrt()
        result[k] = mean + std * z[k]
    return a_next.sqrt() * (Vt.T @ result)


@pytest.mark.parametrize(("eta", "eta_b"), [(0.85, 1.0), (0.4, 0.6)])
@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.5, 3.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_step_is_the_papers(name, sigma, eta, eta_b):
    operator, rule = OPERATORS[name], DDRM(sigma, eta, eta_b)
    y = observation_of(operator, sigma, images=1)
    step = rule.bind(operator, y, LEVELS, noises_of(1))
    generator = torch.Generator().manual_seed(2)
    for i in (0, 5, 9):
        x, e = (torch.randn(1, *SHAPE, dtype=DOUBLE, generator=generator) for _ in range(2))
        expected = papers_step(operator, y.flatten(), rule, i, x.flatten(), e.flatten(), step.noises[i].flatten())
        torch.testing.assert_close(step(i, x, e).flatten(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sigma", [0.0, 0.5, 40.0, 1000.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_start_is_the_papers(name, sigma):
    """Eq. 7, divided by the noise level: y where its noise is less than that of x_0, pure noise elsewhere."""
    operator = OPERATORS[name]
    y = observation_of(operator, 0.1, images=1)
    U, s, Vt = full_basis(operator)
    noise = noises_of(1).initial
    z = Vt @ noise.flatten()
    level = float(LEVELS.noise_to_signal[0])
    expected = z.clone()
    for k, value in enumerate(s.tolist()):
        if value > 0 and sigma / value <= level:
            known = (U.T @ y.flatten())[k] / value
            expected[k] = (known + (level**2 - (sigma / value) ** 2) ** 0.5 * z[k]) / level
    step = DDRM(sigma).bind(operator, y, LEVELS, noises_of(1))
    torch.testing.assert_close(step.first_state(noise).flatten(), Vt.T @ expected, rtol=1e-8, atol=1e-8)
    pure = DDRM(sigma, start_from_y=False).bind(operator, y, LEVELS, noises_of(1))
    assert torch.equal(pure.first_state(noise), noise)


@pytest.mark.parametrize(("sigma", "eta", "eta_b"), [(0.05, 0.85, 1.0), (0.6, 0.4, 0.6)])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_next_state_has_exactly_its_variance(name, sigma, eta, eta_b):
    """With the clean image known, noise of covariance 1 - a_i becomes noise of covariance 1 - a_{i+1}.

    The next state is linear in the noises of the state, of y and of the step, so its covariance is exact.
    """
    operator, size = OPERATORS[name], 192
    basis = torch.eye(size, dtype=DOUBLE).view(size, *SHAPE)
    zero = torch.zeros(1, *SHAPE, dtype=DOUBLE)
    rows = operator.as_matrix(SHAPE).T  # of an image's unit vectors
    y_basis = torch.eye(rows.shape[1], dtype=DOUBLE).view(-1, *operator.forward(zero).shape[1:])
    for i in (0, 8):
        a, a_next = LEVELS.alphas[i : i + 2].tolist()
        covariance = torch.zeros(size, size, dtype=DOUBLE)
        for source in ("state", "observation", "step"):
            count = len(y_basis) if source == "observation" else size
            y = sigma * y_basis if source == "observation" else operator.forward(zero).expand(count, *y_basis.shape[1:])
            z = (basis if source == "step" else zero.expand(count, -1, -1, -1)).expand(10, -1, -1, -1, -1)
            e = basis if source == "state" else zero.expand(count, -1, -1, -1)
            step = DDRM(sigma, eta, eta_b).bind(operator.repeated(count), y, LEVELS, z)
            response = step(i, (1 - a) ** 0.5 * e, e).flatten(1)
            covariance += response.T @ response
        expected = (1 - a_next) * torch.eye(size, dtype=DOUBLE)
        torch.testing.assert_close(covariance, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.0, 0.2, 2.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_without_its_start_and_with_eta_b_one_it_is_ddnm_plus(name, sigma):
    y, noise = observation_of(OPERATORS[name], sigma), noises_of(2)
    rules = DDRM(sigma, 0.7, start_from_y=False), DDNMPlus(sigma, 0.7)
    steps = [rule.bind(OPERATORS[name], y, LEVELS, noise) for rule in rules]
    answers = [SamplingChain(SmoothDenoiser(), step, step.first_state(noise.initial)).sample() for step in steps]
    torch.testing.assert_close(*answers, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", [DDRM(0.0, 1.0, start_from_y=False), DDNMPlus(0.0, 1.0)])
@pytest.mark.parametrize("name", OPERATORS)
def test_noiseless_and_with_all_noise_fresh_it_is_ddnm(name, rule):
    y, noise = observation_of(OPERATORS[name], 0.0), noises_of(2)
    steps = [r.bind(OPERATORS[name], y, LEVELS, noise) for r in (rule, DDNM(1.0))]
    answers = [SamplingChain(SmoothDenoiser(), step, noise.initial).sample() for step in steps]
    torch.testing.assert_close(*answers, rtol=1e-9, atol=1e-9)


def test_settings_out_of_range():
    for settings in ({"sigma_y": -1.0}, {"sigma_y": 0.1, "eta": 1.5}, {"sigma_y": 0.1, "eta_b": -0.1}):
        with pytest.raises(OptionError):
            DDRM(**settings)
