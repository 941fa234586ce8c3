"""Inversion: the noise found makes the image again, and what comes out is that of the serial chain."""

from __future__ import annotations

import pytest
import torch

from conftest import SmoothDenoiser
from deqir.errors import NonFiniteError, OptionError, ShapeError
from deqir.inversion import generate, interpolate, invert, refine
from deqir.operators import Unobserved
from deqir.restoration import Restorer


def photo(count=2, seed=0, size=(8, 8)):
    return torch.rand(count, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sampler(prior, steps=12, **options):
    return Restorer(prior, Unobserved(), steps=steps, solver="serial", dtype="float64", **options)


@pytest.mark.parametrize("prior", ["smooth", "network"])
def test_the_noise_found_makes_the_image_again(prior, network):
    restorer = sampler(SmoothDenoiser(bend=0.02) if prior == "smooth" else network)
    found = invert(restorer, photo(), tolerance=1e-4)
    assert (found.round_trip > 80).all()
    torch.testing.assert_close(generate(restorer, found.noise), found.image, rtol=0, atol=0)
    assert found.sweeps < 40
    assert len(found.defects) == found.sweeps
    assert (found.defects[-1] < found.defects[0]).all()


def test_noise_that_made_an_image_is_found_again():
    restorer = sampler(SmoothDenoiser(bend=0.02))
    noise = torch.randn(1, 3, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = invert(restorer, generate(restorer, noise), tolerance=1e-7)
    torch.testing.assert_close(found.noise, noise, rtol=1e-4, atol=1e-4)


def test_states_near_the_image_settle_first_and_cost_no_more():
    denoiser = SmoothDenoiser(bend=0.02)
    found = invert(sampler(denoiser), photo(1), tolerance=1e-3)
    assert found.nfe[0] < 12 * found.sweeps
    assert sum(denoiser.calls) == found.nfe[0] + 12  # and the measurement of the round trip


def test_optimisation_improves_a_rough_inversion():
    restorer = sampler(SmoothDenoiser(bend=0.02))
    rough = invert(restorer, photo(1), max_sweeps=3)
    better = refine(restorer, photo(1), rough.noise, iterations=8)
    assert better.round_trip > rough.round_trip + 6
    torch.testing.assert_close(generate(restorer, better.noise), better.image)


def test_an_image_is_inverted_as_it_is_alone():
    restorer = sampler(SmoothDenoiser(bend=0.02))
    both, alone = invert(restorer, photo(2), tolerance=1e-6), invert(restorer, photo(2)[1:], tolerance=1e-6)
    torch.testing.assert_close(both.noise[1:], alone.noise, rtol=1e-5, atol=1e-5)


def test_interpolation_keeps_the_ends_and_the_norm():
    first, second = torch.randn(2, 1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    between = interpolate(first, second, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(between[0], first[0])
    torch.testing.assert_close(between[2], second[0])
    assert abs(float(between[1].norm() / first.norm()) - 1) < 0.05
    torch.testing.assert_close(interpolate(first, first, torch.tensor([0.3]))[0], first[0])
    with pytest.raises(ShapeError, match="of one shape"):
        interpolate(first, second[..., 1:], torch.tensor([0.5]))


def test_bad_input_is_one_sentence():
    restorer = sampler(SmoothDenoiser(bend=0.02))
    with pytest.raises(ShapeError, match="takes"):
        invert(restorer, photo()[:, :1])
    with pytest.raises(NonFiniteError, match="finite"):
        invert(restorer, photo() * torch.nan)
    with pytest.raises(OptionError, match="max_sweeps"):
        invert(restorer, photo(), max_sweeps=0)

    def broken(x, timesteps):
        return x * torch.nan

    broken.schedule, broken.channels, broken.name = SmoothDenoiser().schedule, 3, "broken"
    broken.to = lambda device, dtype: broken
    with pytest.raises(NonFiniteError, match="prior"):
        invert(sampler(broken), photo())
