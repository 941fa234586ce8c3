"""Optimising the initial noise: it lowers the loss, keeps the best, and goes on where it was interrupted."""

from __future__ import annotations

import pytest
import torch

from conftest import SmoothDenoiser
from deqir import operators
from deqir.errors import NonFiniteError, OptionError
from deqir.initialization import NoiseOptimizer, OptimizationState
from deqir.losses import CustomLoss, Distance, Gaussianity, MeasurementConsistency
from deqir.restoration import Restorer


def photo(seed=0, count=2):
    return torch.rand(count, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


OPERATOR = operators.SuperResolution(2)
Y = OPERATOR.forward(photo())
GUIDE = Distance(photo(1, 1))


def restorer(solver="serial", eta=0.0, prior=None, **options):
    chosen = {"steps": 6, "eta": eta, "solver": solver, "dtype": "float64", "tolerance": 1e-6} | options
    return Restorer(prior or SmoothDenoiser(), OPERATOR, **chosen)


@pytest.mark.parametrize("optimizer", ["adam", "spherical"])
@pytest.mark.parametrize("solver", ["serial", "preconditioned"])
def test_the_loss_falls_and_the_observation_is_kept(optimizer, solver):
    search = NoiseOptimizer(restorer(solver), [(1.0, GUIDE)], iterations=15, optimizer=optimizer)
    found = search.run(Y)
    assert (found.losses[-1] < 0.7 * found.losses[0]).all()
    assert found.restoration.measurement_error.max() < 1e-6
    value = GUIDE_OF(found.image)
    torch.testing.assert_close(value, found.losses.amin(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.losses.gather(0, found.best[None])[0], found.losses.amin(0))


def GUIDE_OF(image):
    return (image - GUIDE.guide).square().mean((1, 2, 3))


def test_lbfgs_takes_one_image_and_lowers_its_loss_fast():
    search = NoiseOptimizer(restorer(), [(1.0, GUIDE)], iterations=8, optimizer="lbfgs")
    found = search.run(Y[:1])
    adam = NoiseOptimizer(restorer(), [(1.0, GUIDE)], iterations=8).run(Y[:1])
    assert found.losses.min() < adam.losses.min()
    with pytest.raises(OptionError, match="one image at a time"):
        search.run(Y)


def test_parallel_and_serial_optimisation_agree():
    found = {
        solver: NoiseOptimizer(restorer(solver, tolerance=0), [(1.0, GUIDE)], iterations=4).run(Y)
        for solver in ("serial", "preconditioned")
    }
    torch.testing.assert_close(found["preconditioned"].losses, found["serial"].losses, rtol=1e-3, atol=1e-7)


def test_solves_after_the_first_start_from_the_last_equilibrium():
    sweeps = []
    search = NoiseOptimizer(restorer("preconditioned", steps=25, tolerance=0.1), [(1.0, GUIDE)], iterations=4)
    search.run(Y, progress=lambda iteration: sweeps.append(iteration.sweeps))
    assert max(sweeps[1:]) < sweeps[0]


def test_auto_measures_once_and_then_keeps_its_choice():
    found = NoiseOptimizer(restorer("auto"), [(1.0, GUIDE)], iterations=2).run(Y)
    assert found.restoration.stats.solver in ("serial", "preconditioned")
    assert found.restoration.stats.reason == "asked for"


def test_a_spherical_search_keeps_every_norm():
    search = NoiseOptimizer(restorer(), [(1.0, GUIDE)], iterations=5, optimizer="spherical", learning_rate=0.3)
    start = restorer().draw(Y).initial
    found = search.run(Y)
    norms = [part.flatten(1).norm(dim=1) for part in (start, found.noise[0])]
    torch.testing.assert_close(*norms)
    assert (found.noise[0] - start).norm() > 0.1


def test_with_fresh_noise_in_every_step_all_of_it_can_be_optimised():
    initial = NoiseOptimizer(restorer(eta=0.85), [(1.0, GUIDE)], iterations=8).run(Y)
    everything = NoiseOptimizer(restorer(eta=0.85), [(1.0, GUIDE)], iterations=8, variables="all").run(Y)
    assert len(everything.noise) == 7
    assert (everything.losses.amin(0) < initial.losses.amin(0)).all()


def test_an_image_is_optimised_as_it_is_alone():
    both = NoiseOptimizer(restorer(), [(1.0, GUIDE)], iterations=4).run(Y)
    alone = NoiseOptimizer(restorer(), [(1.0, GUIDE)], iterations=4).run(Y[1:], seed=1)
    torch.testing.assert_close(both.image[1:], alone.image)


@pytest.mark.parametrize("optimizer", ["adam", "spherical"])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(optimizer):
    settings = {"losses": [(1.0, GUIDE), (0.01, Gaussianity())], "optimizer": optimizer}
    whole = NoiseOptimizer(restorer(), iterations=6, **settings).run(Y)
    first = NoiseOptimizer(restorer(), iterations=3, **settings).run(Y)
    saved = {key: value.clone() for key, value in first.state.tensors().items()}
    rest = NoiseOptimizer(restorer(), iterations=6, **settings).run(Y, state=OptimizationState.from_tensors(saved))
    torch.testing.assert_close(rest.losses, whole.losses)
    torch.testing.assert_close(rest.image, whole.image)


def test_an_interrupt_keeps_the_best():
    def interrupt(iteration):
        if iteration.number == 2:
            raise KeyboardInterrupt

    search = NoiseOptimizer(restorer(), [(1.0, GUIDE)], iterations=50)
    found = search.run(Y, progress=interrupt)
    assert found.stopped == "interrupted"
    assert len(found.losses) == 3
    torch.testing.assert_close(GUIDE_OF(found.image), found.losses.amin(0))


def test_patience_ends_what_does_not_improve():
    flat = CustomLoss(lambda candidate: 1 + 0 * candidate.image.sum((1, 2, 3)))
    found = NoiseOptimizer(restorer(), [(1.0, flat)], iterations=50, patience=3).run(Y)
    assert found.stopped == "patience"
    assert len(found.losses) == 4


def test_a_diverging_loss_ends_with_the_best_so_far():
    calls = []

    def explode(candidate):
        calls.append(1)
        return GUIDE(candidate) * (torch.nan if len(calls) > 3 else 1.0)

    found = NoiseOptimizer(restorer(), [(1.0, CustomLoss(explode))], iterations=50).run(Y)
    assert found.stopped == "diverged"
    assert found.image.isfinite().all()
    torch.testing.assert_close(GUIDE_OF(found.image), found.losses[:3].amin(0))


def test_losses_that_cannot_guide_are_one_sentence():
    def bad(candidate):
        return candidate.image.mean((1, 2, 3)) * torch.nan

    with pytest.raises(NonFiniteError, match="loss bad is NaN or infinite at the start"):
        NoiseOptimizer(restorer(), [(1.0, GUIDE), (1.0, CustomLoss(bad))]).run(Y)
    detached = CustomLoss(lambda candidate: candidate.image.detach().mean((1, 2, 3)))
    with pytest.raises(OptionError, match="has no gradient"):
        NoiseOptimizer(restorer(), [(1.0, detached)]).run(Y)


def test_a_term_that_is_zero_changes_nothing():
    weighted = [(1.0, GUIDE), (5.0, MeasurementConsistency())]
    with_it = NoiseOptimizer(restorer(), weighted, iterations=3).run(Y)
    without = NoiseOptimizer(restorer(), weighted[:1], iterations=3).run(Y)
    torch.testing.assert_close(with_it.image, without.image, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"losses": []}, "at least one"),
        ({"optimizer": "sgd"}, "choose one of"),
        ({"variables": "some"}, "choose initial or all"),
        ({"iterations": 0}, "at least 1"),
        ({"patience": 0}, "at least 1"),
        ({"learning_rate": -1.0}, "above zero"),
        ({"minimum": 1.0}, "minimum"),
    ],
)
def test_options_out_of_range_are_refused(options, match):
    with pytest.raises(OptionError, match=match):
        NoiseOptimizer(**({"restorer": restorer(), "losses": [(1.0, GUIDE)]} | options))


def test_a_state_of_something_else_is_refused():
    state = NoiseOptimizer(restorer(), [(1.0, GUIDE)], iterations=1).run(Y).state
    with pytest.raises(OptionError, match="saved state"):
        NoiseOptimizer(restorer(), [(1.0, GUIDE)]).run(Y[:1], state=state)
    with pytest.raises(OptionError, match="not that of an optimisation"):
        OptimizationState.from_tensors({"noise": torch.zeros(1)})
