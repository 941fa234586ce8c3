"""The gradients of a solved chain: implicit equals backpropagation, and what each adjoint promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from conftest import SHAPE, SmoothDenoiser, all_operators, tiny_unet
from deqir import operators
from deqir.adjoints import ImplicitAdjoint, PhantomGradient, UnrolledAdjoint
from deqir.chain import SamplingChain
from deqir.consistency import DDNM, DDRM, AffineStep, DDNMPlus, DiffPIR, TimeTravel
from deqir.equilibrium import solve_equilibrium
from deqir.errors import NonFiniteError, OptionError
from deqir.noise import SeededNoise
from deqir.preconditioner import BandedSecant
from deqir.priors import DiffusersDenoiser
from deqir.schedule import NoiseSchedule
from deqir.solvers import Anderson, Picard, TriangularAnderson

STEPS = 8
RULES = {
    "ddim": DDNM(0.0),
    "ddnm": DDNM(0.85),
    "ddnm+": DDNMPlus(0.2, 0.85),
    "ddrm": DDRM(0.2, 0.85),
    "diffpir": DiffPIR(0.2),
    "travel": TimeTravel(DDNM(0.85)),
}
TRAVEL = (2, 2)
EXACT = ImplicitAdjoint(tolerance=0)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def levels_of(denoiser, rule):
    levels = denoiser.schedule.levels(STEPS)
    return levels.with_travel(*TRAVEL) if isinstance(rule, TimeTravel) else levels


def leaves(operator, images=2, count=STEPS):
    """x_0, y and the step noises, all asking for gradients."""
    noise = SeededNoise(SHAPE, list(range(images)), count, torch.device("cpu"), torch.float64)
    y = operator.forward(random(images, *SHAPE, seed=7).tanh()).detach()
    return tuple(part.clone().requires_grad_() for part in (noise.initial, y, noise[0:count]))


def chain_of(denoiser, rule, operator, parts, max_batch=None):
    x_0, y, noises = parts
    step = rule.bind(operator, y, levels_of(denoiser, rule), noises if rule.needs_noise else None)
    return SamplingChain(denoiser, step, step.first_state(x_0), max_batch)


def gradients(adjoint, denoiser, rule, operator, extra=(), max_batch=None, weights=None, images=2):
    """dL/d(x_0, y, z, extra) of a random linear loss of the image, or with ``weights`` (S, ...) of all states."""
    parts = leaves(operator, images, max(STEPS, rule.noise_count(levels_of(denoiser, rule))))
    chain = chain_of(denoiser, rule, operator, parts, max_batch)
    states = solve_equilibrium(chain, Picard(), 0, preconditioner=BandedSecant(), adjoint=adjoint).states
    loss = (states[-1] * random(*states.shape[1:], seed=3)).sum() if weights is None else (states * weights).sum()
    wanted = [*parts, *extra]
    return torch.autograd.grad(loss, wanted, materialize_grads=True)


def assert_same(actual, expected, tolerance=1e-9):
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm() + 1e-14  # what cancels leaves rounding


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("operator", all_operators().values(), ids=all_operators().keys())
def test_implicit_equals_backpropagation_for_every_rule_and_operator(network, rule, operator):
    exact = gradients(UnrolledAdjoint(), network, rule, operator)
    assert any(part.norm() > 1e-3 for part in exact)
    assert_same(gradients(EXACT, network, rule, operator), exact)


ADJOINTS = {
    "frozen": replace(EXACT, preconditioner=None),
    "anderson": replace(EXACT, solver=Anderson()),
    "triangular": replace(EXACT, solver=TriangularAnderson(), preconditioner=None),
    "windowed": replace(EXACT, solver=Picard(window=3)),
    "windowed-frozen": replace(EXACT, solver=Picard(window=2), preconditioner=None),
    "no-secants": replace(EXACT, preconditioner=BandedSecant(directions=0)),
}


@pytest.mark.parametrize("adjoint", ADJOINTS.values(), ids=ADJOINTS.keys())
def test_every_solver_finds_the_same_gradient(network, adjoint):
    exact = gradients(UnrolledAdjoint(), network, RULES["ddnm"], operators.SuperResolution(2))
    assert_same(gradients(adjoint, network, RULES["ddnm"], operators.SuperResolution(2)), exact)


def test_backpropagation_is_the_derivative(network):
    operator = operators.SuperResolution(4)
    x_0, y, noises = leaves(operator, images=1)

    def image(x_0: Tensor, y: Tensor, noises: Tensor) -> Tensor:
        chain = chain_of(network, RULES["ddnm"], operator, (x_0, y, noises))
        return solve_equilibrium(chain, Picard(), 0, adjoint=EXACT).states[-1]

    assert torch.autograd.gradcheck(image, (x_0, y, noises), fast_mode=True)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_a_blur_kernel_and_a_soft_mask_get_their_gradients(network, rule):
    kernel = operators.gaussian_kernel(3, 0.6).requires_grad_()
    weights = (random(8, 8, seed=5).sigmoid() + 0.1).requires_grad_()
    for operator, parameter in ((operators.ParametricBlur(kernel), kernel), (operators.SoftMask(weights), weights)):
        exact = gradients(UnrolledAdjoint(), network, rule, operator, (parameter,))
        assert exact[-1].norm() > 1e-6
        assert_same(gradients(EXACT, network, rule, operator, (parameter,)), exact)


def test_the_network_gets_its_gradients_if_asked():
    model = tiny_unet().double()
    denoiser = DiffusersDenoiser(model, NoiseSchedule.linear(), "v_prediction", "trained", torch.float64)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rule, operator = RULES["ddnm"], operators.SuperResolution(2)
    exact = gradients(UnrolledAdjoint(), denoiser, rule, operator, parameters)
    assert_same(
        gradients(replace(EXACT, network_parameters=True), denoiser, rule, operator, parameters, 3), exact, 1e-8
    )
    unasked = gradients(EXACT, denoiser, rule, operator, parameters)
    assert_same(unasked[:3], exact[:3])
    assert not any(gradient.any() for gradient in unasked[3:])


def test_a_loss_may_look_at_every_state(network):
    weights = random(STEPS, 2, *SHAPE, seed=11)
    exact = gradients(UnrolledAdjoint(), network, RULES["ddnm"], operators.Colorization(), weights=weights)
    assert_same(gradients(EXACT, network, RULES["ddnm"], operators.Colorization(), weights=weights), exact)


def test_checkpointing_changes_no_gradient(network):
    plain, saved = (
        gradients(UnrolledAdjoint(choice), network, RULES["ddnm"], operators.Colorization()) for choice in (False, True)
    )
    assert_same(saved, plain, 1e-14)


class WithoutClosedForm(AffineStep):
    """A step that is transposed by autograd."""

    def __init__(self, step):
        self.step, self.levels = step, step.levels

    def parts(self, i, x, e):
        return self.step.parts(i, x, e)


@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_the_transposed_ddnm_step_is_what_autograd_finds(network, eta):
    parts = leaves(operators.SuperResolution(2))
    step = chain_of(network, DDNM(eta), operators.SuperResolution(2), parts).step
    cotangent = random(2, *SHAPE, seed=9)
    for i in (0, 3, STEPS - 1):
        assert_same(step.transpose(i, cotangent), WithoutClosedForm(step).transpose(i, cotangent), 1e-12)


def test_a_tolerance_saves_sweeps_and_bounds_the_error(network):
    solved = []
    rule, operator = RULES["ddim"], operators.SuperResolution(2)
    exact = gradients(UnrolledAdjoint(), network, rule, operator)[0]
    for tolerance in (0, 1e-4, 1e-2):
        adjoint = ImplicitAdjoint(tolerance=tolerance, report=solved.append)
        found = gradients(adjoint, network, rule, operator)[0]
        assert (found - exact).norm() <= 10 * tolerance * random(2, *SHAPE, seed=3).norm() + 1e-9
    sweeps = [int(solution.sweeps.max()) for solution in solved]
    assert sweeps[0] == STEPS
    assert sweeps == sorted(sweeps, reverse=True)
    assert sweeps[2] < STEPS


def test_an_image_has_the_gradient_it_has_alone(network):
    both = gradients(ImplicitAdjoint(), network, RULES["ddnm"], operators.SuperResolution(2))
    parts = leaves(operators.SuperResolution(2))
    alone = [part[:, 1:] if part.ndim == 5 else part[1:] for part in parts]
    chain = chain_of(network, RULES["ddnm"], operators.SuperResolution(2), alone)
    states = solve_equilibrium(chain, Picard(), 0, preconditioner=BandedSecant(), adjoint=ImplicitAdjoint()).states
    loss = (states[-1] * random(2, *SHAPE, seed=3)[1:]).sum()
    single = torch.autograd.grad(loss, alone)
    assert_same([both[0][1:], both[1][1:], both[2][:, 1:]], single, 1e-10)


def test_vector_jacobian_products_stay_within_max_batch():
    denoiser = SmoothDenoiser()
    free = gradients(EXACT, denoiser, RULES["ddnm"], operators.SuperResolution(2))
    denoiser.calls.clear()
    bound = gradients(EXACT, denoiser, RULES["ddnm"], operators.SuperResolution(2), max_batch=3)
    assert max(denoiser.calls) == 3
    assert_same(bound, free, 1e-12)


def test_only_the_initial_noise_costs_no_network_call_beyond_the_sweeps():
    denoiser, solved = SmoothDenoiser(), []
    x_0, y, noises = leaves(operators.SuperResolution(2))
    chain = chain_of(denoiser, RULES["ddnm"], operators.SuperResolution(2), (x_0, y.detach(), noises.detach()))
    solution = solve_equilibrium(chain, Picard(), 0, adjoint=ImplicitAdjoint(report=solved.append))
    denoiser.calls.clear()
    solution.states[-1].sum().backward()
    assert sum(denoiser.calls) == int(solved[0].evaluations.sum())


def test_a_loss_that_says_nothing_has_gradient_zero(network):
    x_0 = leaves(operators.SuperResolution(2))[0]
    parts = (x_0, *(part.detach() for part in leaves(operators.SuperResolution(2))[1:]))
    chain = chain_of(network, RULES["ddnm"], operators.SuperResolution(2), parts)
    states = solve_equilibrium(chain, Picard(), 0, adjoint=ImplicitAdjoint()).states
    (states[-1] * 0).sum().backward()
    assert x_0.grad is not None
    assert not x_0.grad.any()


def test_nothing_to_differentiate_gives_states_without_gradients(network):
    parts = tuple(part.detach() for part in leaves(operators.SuperResolution(2)))
    chain = chain_of(network, RULES["ddnm"], operators.SuperResolution(2), parts)
    states = solve_equilibrium(chain, Picard(), 0, adjoint=ImplicitAdjoint()).states
    assert not states.requires_grad
    torch.testing.assert_close(states[-1], chain.sample())


def test_a_gradient_that_is_not_finite_is_named(network):
    x_0 = leaves(operators.SuperResolution(2))[0]
    parts = (x_0, *(part.detach() for part in leaves(operators.SuperResolution(2))[1:]))
    chain = chain_of(network, RULES["ddnm"], operators.SuperResolution(2), parts)
    states = solve_equilibrium(chain, Picard(), 0, adjoint=ImplicitAdjoint()).states
    with pytest.raises(NonFiniteError, match="check the loss"):
        (states[-1] * torch.nan).sum().backward()


def test_phantom_gradients_approach_the_exact_one(network):
    rule, operator = RULES["ddim"], operators.SuperResolution(2)
    exact = gradients(UnrolledAdjoint(), network, rule, operator)[0].flatten()
    cosines = []
    for steps in (1, 2, STEPS):
        found = gradients(PhantomGradient(steps), network, rule, operator)[0].flatten()
        cosines.append(float(found @ exact / (found.norm() * exact.norm())))
    assert cosines[0] > 0.5
    assert cosines[2] > 1 - 1e-9  # F is nilpotent: S undamped sweeps forget where they began
    damped = gradients(PhantomGradient(2, 0.5), network, rule, operator)[0].flatten()
    assert 0.5 < float(damped @ exact / (damped.norm() * exact.norm())) < cosines[2]


def test_options_out_of_range_are_refused():
    with pytest.raises(OptionError, match="tolerance"):
        ImplicitAdjoint(tolerance=-1)
    with pytest.raises(OptionError, match="at least 1"):
        PhantomGradient(0)
    with pytest.raises(OptionError, match="damping"):
        PhantomGradient(1, 1.5)
