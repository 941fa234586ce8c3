import pytest
import torch

from conftest import SHAPE, SmoothDenoiser, all_operators, make_chain
from deqir.equilibrium import solve_equilibrium
from deqir.errors import OptionError
from deqir.preconditioner import BandedSecant, _bands, _radius
from deqir.solvers import Anderson, Picard, Status, solve

OPERATORS = all_operators()


class LinearDenoiser(SmoothDenoiser):
    """The exact denoiser of white Gaussian images: its Jacobian is one number a timestep."""

    def __call__(self, x, timesteps):
        a = self.schedule.alphas_cumprod[timesteps].to(x.dtype).view(-1, 1, 1, 1)
        return (1 - a).sqrt() / (a * self.variance + 1 - a) * x


@pytest.mark.parametrize("eta", [0.0, 0.85])
@pytest.mark.parametrize("name", OPERATORS)
def test_same_answer_as_the_serial_chain(name, eta):
    chain = make_chain(SmoothDenoiser(), OPERATORS[name], eta)
    solution = solve_equilibrium(chain, Picard(), tolerance=0.0, preconditioner=BandedSecant())
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-9, atol=1e-9)


def test_same_answer_with_a_real_network_and_anderson_on_top(network):
    chain = make_chain(network, OPERATORS["inpaint"], 0.85, steps=8)
    solution = solve_equilibrium(chain, Anderson(), tolerance=0.0, preconditioner=BandedSecant())
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-8, atol=1e-8)


def test_every_sweep_makes_one_more_state_exact_whatever_the_jacobian():
    chain = make_chain(SmoothDenoiser(), OPERATORS["inpaint"], 0.85)
    truth = []
    chain.sample(lambda done, state: truth.append(state))
    jacobian = BandedSecant().start(chain.step.levels, chain.initial_noise)
    jacobian.gains = torch.rand_like(jacobian.gains)
    jacobian.learn = lambda *arguments: None
    seen = []

    def watch(report):
        seen.append(int(report.finished[0]))
        for k in range(seen[-1]):
            torch.testing.assert_close(report.states[k], truth[k], rtol=1e-9, atol=1e-9)

    solve(Picard(), chain.preconditioned_sweep(jacobian), chain.repeated_noise_start(), torch.zeros(10), watch)
    assert seen == list(range(1, 11))


@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_a_linear_network_is_learned_in_two_sweeps(eta):
    chain = make_chain(LinearDenoiser(), OPERATORS["inpaint"], eta, steps=40)
    solution = solve_equilibrium(chain, Picard(), tolerance=0.01, preconditioner=BandedSecant(bands=1, trust=1e-9))
    plain = solve_equilibrium(chain, Picard(), tolerance=0.01)
    assert solution.status == (Status.CONVERGED,) * 2
    assert (solution.sweeps <= 4).all()
    assert (plain.sweeps > 15).all()
    torch.testing.assert_close(solution.value, chain.sample(), rtol=0, atol=1e-3)


def test_the_exact_jacobian_of_a_linear_network_needs_one_sweep():
    chain = make_chain(LinearDenoiser(), OPERATORS["sr"], 0.85, steps=30, images=1)
    settings = BandedSecant(variance=0.2, corner=1e6)
    solution = solve_equilibrium(chain, Picard(max_sweeps=1), tolerance=0.0, preconditioner=settings)
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-6, atol=1e-6)


def test_gains_stay_within_their_bounds_and_finite():
    chain = make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85)
    jacobian = BandedSecant().start(chain.step.levels, chain.initial_noise)
    generator = torch.Generator().manual_seed(0)
    everywhere = torch.ones(10, 2, dtype=torch.bool)
    for scale in (1.0, 1e20, 0.0, float("nan")):
        inputs, predictions = (torch.randn(10, 2, *SHAPE, generator=generator) * scale for _ in range(2))
        jacobian.learn(inputs, predictions, everywhere)
        assert jacobian.gains.isfinite().all()
        assert (jacobian.gains >= 0).all()
        assert (jacobian.gains <= jacobian.cap).all()


def test_an_image_does_not_depend_on_its_batch():
    both, alone = (make_chain(SmoothDenoiser(), OPERATORS["sr"], 0.85, steps=20, images=n) for n in (2, 1))
    together, single = (solve_equilibrium(c, Picard(), 0.1, preconditioner=BandedSecant()) for c in (both, alone))
    torch.testing.assert_close(together.value[:1], single.value, rtol=1e-9, atol=1e-9)
    assert together.sweeps[0] == single.sweeps[0]


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1), (1, 5), (2, 2)])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_bands_cover_every_frequency(size, count):
    radius = _radius(*size)
    band = _bands(radius, count)
    assert band.shape == (size[0], size[1] // 2 + 1)
    assert band.min() >= 0
    assert band.max() <= count - 1
    if count > 1:
        assert (band == 0).sum() == 1 or radius.numel() == 1


@pytest.mark.parametrize("settings", [{"bands": 0}, {"decay": 2.0}, {"trust": 0.0}, {"variance": -1.0}])
def test_settings_out_of_range(settings):
    with pytest.raises(OptionError):
        BandedSecant(**settings)
