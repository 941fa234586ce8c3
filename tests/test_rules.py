"""What holds for every consistency rule."""

import json

import pytest
import torch

from conftest import SHAPE, SmoothDenoiser, all_operators, noises_of, observation_of
from deqir import operators
from deqir.adjoints import ImplicitAdjoint, UnrolledAdjoint
from deqir.chain import SamplingChain
from deqir.consistency import DDNM, DDRM, ConsistencyRule, DDNMPlus, DiffPIR, TimeTravel, choose_rule, describe_rule
from deqir.equilibrium import solve_equilibrium
from deqir.errors import OptionError
from deqir.operators import LinearOperator
from deqir.preconditioner import BandedSecant
from deqir.priors import ClippedDenoiser
from deqir.restoration import Restorer
from deqir.schedule import NoiseSchedule
from deqir.solvers import Anderson, Picard, TriangularAnderson

OPERATORS = all_operators()
LEVELS = NoiseSchedule.linear().levels(10)
DOUBLE = torch.float64
RULES = {
    "ddnm+": DDNMPlus(0.2),
    "ddrm": DDRM(0.2),
    "ddrm mixed": DDRM(0.2, 0.5, 0.7),
    "diffpir": DiffPIR(0.2),
    "diffpir zeta 0": DiffPIR(0.2, zeta=0.0),
    "diffpir noiseless": DiffPIR(0.0),
}
SOLVES = {
    "picard": (Picard(), None),
    "anderson": (Anderson(), None),
    "window": (TriangularAnderson(window=4), None),
    "preconditioned": (Picard(), BandedSecant()),
}


class Opaque(LinearOperator):
    """The identity, of which no singular values are known."""

    def forward(self, x):
        return x

    adjoint = pinv = forward

    def image_shape(self, observation_shape):
        return observation_shape


def bound(rule, name, levels=LEVELS):
    return rule.bind(OPERATORS[name], observation_of(OPERATORS[name], rule.sigma_y), levels, noises_of(2))


@pytest.mark.parametrize("solve", SOLVES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", OPERATORS)
def test_parallel_equals_serial(name, rule, solve):
    step = bound(RULES[rule], name, NoiseSchedule.linear().levels(6))
    chain = SamplingChain(SmoothDenoiser(), step, step.first_state(noises_of(2).initial))
    solver, preconditioner = SOLVES[solve]
    solution = solve_equilibrium(chain, solver, tolerance=0.0, preconditioner=preconditioner)
    torch.testing.assert_close(solution.value, chain.sample(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["sr_bicubic", "inpaint", "cs"])
def test_replay_equals_the_steps(name, rule):
    step = bound(RULES[rule], name)
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(11, 2, *SHAPE, dtype=DOUBLE, generator=generator)
    predictions = torch.randn(10, 2, *SHAPE, dtype=DOUBLE, generator=generator)
    replayed = step.replay(states, predictions, torch.tensor([3, 5]), torch.tensor([10, 8]))
    for b, (first, last) in enumerate([(3, 10), (5, 8)]):
        x = states[first]
        for i in range(first, last):
            x = step(i, x, predictions[i])
            torch.testing.assert_close(replayed[i, b], x[b], rtol=1e-9, atol=1e-9)
    assert torch.equal(replayed[8:, 1], states[9:, 1])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", OPERATORS)
def test_a_step_is_affine(name, rule):
    """Convex combinations of (x, e) go to those of the next states."""
    step = bound(RULES[rule], name)
    generator = torch.Generator().manual_seed(1)
    x, e = (torch.randn(2, 2, *SHAPE, dtype=DOUBLE, generator=generator) for _ in range(2))
    mixed = step(4, 0.3 * x[0] + 0.7 * x[1], 0.3 * e[0] + 0.7 * e[1])
    torch.testing.assert_close(mixed, 0.3 * step(4, x[0], e[0]) + 0.7 * step(4, x[1], e[1]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", [DDNM(), DDNMPlus(0.2), DDNMPlus(0.0), DDRM(0.2), DDRM(0.0), DiffPIR(0.2)])
@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_are_finite_and_those_of_finite_differences(name, rule):
    y, noise = observation_of(OPERATORS[name], 0.2, images=1), noises_of(1)
    generator = torch.Generator().manual_seed(1)
    leaves = [torch.randn(1, *SHAPE, dtype=DOUBLE, generator=generator) for _ in range(3)]
    direction = [torch.randn(leaf.shape, dtype=DOUBLE, generator=generator) for leaf in (*leaves, y)]
    weights = torch.randn(1, *SHAPE, dtype=DOUBLE, generator=generator)

    def value(i, x, e, z, y):
        step = rule.bind(OPERATORS[name], y, LEVELS, {i: z, **{k: noise[k] for k in range(10) if k != i}})
        return (weights * step(i, x, e)).sum()

    for i in (0, 5, 9):
        tracked = [leaf.clone().requires_grad_() for leaf in (*leaves, y)]
        gradients = torch.autograd.grad(value(i, *tracked), tracked)
        slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
        ahead, behind = (
            value(i, *[leaf + h * d for leaf, d in zip((*leaves, y), direction, strict=True)]) for h in (0.5, -0.5)
        )
        torch.testing.assert_close(slope, ahead - behind, rtol=1e-8, atol=1e-8)


class Scaled(operators.Denoising):
    """The identity times a number that wants a gradient, which is thus every singular value."""

    def __init__(self, scale):
        object.__setattr__(self, "scale", scale)

    def singular_values(self, like):
        return self.scale


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.3, 5.0])
@pytest.mark.parametrize("make", [DDNMPlus, DDRM, DiffPIR])
@pytest.mark.parametrize("scale", [0.0, 0.7])
def test_gradients_in_the_singular_values_are_finite(make, sigma, scale):
    s = torch.tensor(scale, dtype=DOUBLE, requires_grad=True)
    step = make(sigma).bind(Scaled(s), observation_of(operators.Denoising(), 0.1), LEVELS, noises_of(2))
    x = step.first_state(noises_of(2).initial)
    for i in range(10):
        x = step(i, x, 0.3 * x)
    (gradient,) = torch.autograd.grad(x.square().sum(), s)
    assert gradient.isfinite()


def test_the_choice_of_rules():
    plain, opaque = operators.Denoising(), Opaque()
    assert choose_rule("auto", opaque, 0.0, 0.5) == choose_rule("ddnm", plain, 0.2, 0.5) == DDNM(0.5)
    assert choose_rule("auto", plain, 0.2, 0.5) == choose_rule("ddnm+", plain, 0.2, 0.5) == DDNMPlus(0.2, 0.5)
    assert choose_rule("auto", opaque, 0.2, 0.5) == choose_rule("diffpir", plain, 0.2, 0.5) == DiffPIR(0.2)
    assert choose_rule("ddrm", plain, 0.2, 0.5) == DDRM(0.2, 0.5)
    with pytest.raises(OptionError, match="'dps'; choose one of auto, ddnm"):
        choose_rule("dps", plain, 0.2, 0.5)
    for name in ("auto", "ddnm", "diffpir"):
        with pytest.raises(OptionError, match="noise level is -1"):
            choose_rule(name, plain, -1.0, 0.5)
        with pytest.raises(OptionError, match="eta is 2"):
            choose_rule(name, plain, 0.2, 2.0)


@pytest.mark.parametrize("rule", [DDNM(0.3), DDNMPlus(0.2), DDRM(0.2, eta_b=0.5), DiffPIR(0.2, lambda_=3.0)])
def test_a_rule_can_be_made_again_from_its_description(rule):
    described = json.loads(json.dumps(describe_rule(rule)))
    again = {"ddnm": DDNM, "ddnm+": DDNMPlus, "ddrm": DDRM, "diffpir": DiffPIR}[described["rule"]]
    assert again(**described["rule_settings"]) == rule
    travelling = describe_rule(TimeTravel(rule, "state"))
    assert travelling == {"rule": "time travel", "rule_settings": {"rule": described, "origin": "state"}}


def test_a_rule_of_ones_own_is_described_by_its_class():
    class Mine(ConsistencyRule):
        needs_noise = False

        def bind(self, operator, y, levels, noises):
            return DDNM(0.0).bind(operator, y, levels, None)

    assert describe_rule(Mine()) == {"rule": "Mine", "rule_settings": {}}
    y = torch.rand(1, *SHAPE, dtype=DOUBLE)
    mine, theirs = (
        Restorer(SmoothDenoiser(), operators.Denoising(), 5, rule=rule, solver="serial", dtype="float64").restore(y)
        for rule in (Mine(), DDNM(0.0))
    )
    assert torch.equal(mine.image, theirs.image)


@pytest.mark.parametrize("rule", ["ddnm+", "ddrm", "diffpir"])
def test_the_restorer_takes_rules_by_name_in_units_of_0_to_1(rule):
    truth = torch.rand(2, *SHAPE, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    noisy = truth + 0.3 * torch.randn(truth.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    options = {"noise": 0.3, "tolerance": 0.0, "dtype": "float64"}
    serial, parallel = (
        Restorer(SmoothDenoiser(), operators.Denoising(), 10, solver=solver, rule=rule, **options)
        for solver in ("serial", "preconditioned")
    )
    assert serial.chosen_rule.sigma_y == 0.6
    restored = serial.restore(noisy).image
    assert (restored - truth).square().mean() < 0.8 * (noisy - truth).square().mean()
    torch.testing.assert_close(parallel.restore(noisy).image, restored, rtol=1e-8, atol=1e-8)


def test_noisy_observations_of_an_operator_without_singular_values():
    y = torch.rand(1, *SHAPE, dtype=DOUBLE)
    assert isinstance(Restorer(SmoothDenoiser(), Opaque(), 5, noise=0.1).chosen_rule, DiffPIR)
    assert Restorer(SmoothDenoiser(), Opaque(), 5, noise=0.1).restore(y).image.isfinite().all()
    for rule, name in (("ddrm", "DDRM"), ("ddnm+", r"DDNM\+")):
        with pytest.raises(OptionError, match=f"Opaque has no known singular values, which {name} needs"):
            Restorer(SmoothDenoiser(), Opaque(), 5, noise=0.1, rule=rule).restore(y)
    with pytest.raises(OptionError, match="rule is 'dps'"):
        Restorer(SmoothDenoiser(), Opaque(), 5, rule="dps")


def test_a_clipped_denoiser_keeps_clean_images_in_range():
    prior = SmoothDenoiser()
    clipped = ClippedDenoiser(prior).to(torch.device("cpu"), DOUBLE)
    x = 3 * torch.randn(4, *SHAPE, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([999, 700, 100, 0])
    a = prior.schedule.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    clean, kept = ((x - (1 - a).sqrt() * d(x, timesteps)) / a.sqrt() for d in (prior, clipped))
    assert clean.abs().max() > 1
    torch.testing.assert_close(kept, clean.clamp(-1, 1), rtol=1e-9, atol=1e-9)
    assert (clipped.name, clipped.channels) == ("smooth (clipped)", 3)


@pytest.mark.parametrize("travel", [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("rule", ["ddnm", "ddnm+", "ddrm", "diffpir"])
def test_gradients_of_a_solved_chain_are_those_of_backpropagation(rule, travel):
    """With respect to y and to the operator, also where x_0 holds y (DDRM) and where the first step travels (1, 2)."""
    y = torch.rand(1, *SHAPE, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(1, *SHAPE, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    options = {"noise": 0.1, "rule": rule, "travel_length": travel[0], "travel_repeat": travel[1]}
    found = []
    for adjoint in (UnrolledAdjoint(), ImplicitAdjoint(tolerance=0)):
        leaves = y.clone().requires_grad_(), operators.gaussian_kernel().double().requires_grad_()
        restorer = Restorer(SmoothDenoiser(), operators.ParametricBlur(leaves[1]), 4, dtype="float64", **options)
        restored = restorer.restore(leaves[0], adjoint=adjoint).image
        found.append(torch.autograd.grad((weights * restored).sum(), leaves))
    for exact, implicit in zip(*found, strict=True):
        assert exact.norm() > 1e-3
        torch.testing.assert_close(implicit, exact, rtol=1e-7, atol=1e-7)
