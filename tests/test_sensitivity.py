"""Sensitivity is the Jacobian of the region; uncertainty is the spread over seeds; overlays show both."""

from __future__ import annotations

import pytest
import torch

from conftest import SmoothDenoiser
from deqir import operators
from deqir.errors import OptionError, ShapeError
from deqir.overlays import heat, outlined, overlay
from deqir.restoration import Restorer
from deqir.sensitivity import Region, explain, uncertainty


def problem(solver="serial"):
    operator = operators.Inpainting(operators.random_mask(8, 8, 0.5, torch.Generator().manual_seed(0)))
    truth = torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    options = {"steps": 5, "eta": 0.5, "dtype": "float64", "tolerance": 1e-6}
    return Restorer(SmoothDenoiser(), operator, solver=solver, **options), operator.forward(truth)


def test_the_map_is_the_jacobian_of_the_region():
    restorer, y = problem()
    region = Region(2, 3, 2, 1).mask((8, 8))

    def decided(y, noise):
        return restorer.restore(y, initial_noise=noise).image[:, :, 3, 2:4].flatten()

    noise = restorer.draw(y).initial
    step = 1e-5
    squares = []
    for which in range(2):
        given = [y, noise]
        total = torch.zeros_like(given[which])
        for index in range(given[which].numel()):
            nudge = torch.zeros_like(given[which]).flatten()
            nudge[index] = step
            moved = [g + nudge.view_as(g) if k == which else g for k, g in enumerate(given)]
            opposite = [g - nudge.view_as(g) if k == which else g for k, g in enumerate(given)]
            slope = (decided(*moved) - decided(*opposite)) / (2 * step)
            total.view(-1)[index] = slope.square().sum() / 6
        squares.append(total[0])
    found = explain(restorer, y, region, probes=400)
    for ours, exact in zip((found.observation, found.noise), squares, strict=True):
        assert (ours.square() - exact).norm() < 0.15 * exact.norm()
        assert (ours[exact == 0] == 0).all()  # hidden pixels decide nothing
    torch.testing.assert_close(found.image, restorer.restore(y).image[0])


def test_parallel_and_serial_maps_agree():
    region = Region(0, 0, 4, 4).mask((8, 8))
    maps = [explain(*problem(solver), region, probes=4) for solver in ("serial", "preconditioned")]
    torch.testing.assert_close(maps[1].observation, maps[0].observation, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(maps[1].noise, maps[0].noise, rtol=1e-2, atol=1e-3)


def test_the_spread_is_that_of_the_restorations():
    restorer, y = problem()
    found = uncertainty(restorer, y, seeds=3, seed=5)
    single = torch.cat([restorer.restore(y, seed).image for seed in (5, 6, 7)]).clamp(0, 1)
    torch.testing.assert_close(found.images, single)
    torch.testing.assert_close(found.spread, single.std(0))
    known = restorer.operator.mask[0, 0]
    assert found.spread[:, known].max() < 1e-12
    assert found.spread[:, ~known].mean() > 0.05


def test_regions_are_checked():
    assert Region.parse("1,2,3,4") == Region(1, 2, 3, 4)
    assert Region(1, 2, 3, 4).mask((8, 8)).sum() == 12
    assert Region(1, 2, 3, 4).mask((8, 8))[2:6, 1:4].all()
    for text in ("1,2,3", "a,b,c,d", "-1,0,2,2", "0,0,0,1"):
        with pytest.raises(OptionError, match="left,top,width,height"):
            Region.parse(text)
    with pytest.raises(OptionError, match="beyond the image of 8 x 6"):
        Region(4, 4, 3, 3).mask((6, 8))


def test_bad_questions_are_one_sentence():
    restorer, y = problem()
    region = torch.ones(8, 8)
    with pytest.raises(ShapeError, match="one at a time"):
        explain(restorer, torch.cat([y, y]), region)
    with pytest.raises(ShapeError, match="one at a time"):
        uncertainty(restorer, torch.cat([y, y]))
    with pytest.raises(ShapeError, match="same size"):
        explain(restorer, y, torch.ones(8, 7))
    with pytest.raises(OptionError, match="empty"):
        explain(restorer, y, torch.zeros(8, 8))
    with pytest.raises(OptionError, match="probes"):
        explain(restorer, y, region, probes=0)
    with pytest.raises(OptionError, match="at least 2"):
        uncertainty(restorer, y, seeds=1)


def test_overlays_show_where_a_map_is_strong():
    image = torch.full((3, 8, 8), 0.5)
    values = torch.zeros(8, 8)
    values[2, 3] = 1
    shown = overlay(image, values, largest=1.0)
    assert shown.shape == (3, 8, 8)
    assert (shown[:, 2, 3] - heat(values, 1.0)[:, 2, 3]).abs().max() < 0.15
    assert torch.allclose(shown[:, 0, 0], torch.full((3,), 0.45))
    brightness = heat(torch.linspace(0, 1, 50)[None], 1.0).mean(0)[0]
    assert (brightness.diff() > 0).all()
    assert not overlay(image, torch.zeros(8, 8)).isnan().any()
    box = outlined(image, Region(2, 2, 4, 4).mask((8, 8)))
    assert (box != image).any(0).sum() == 12
    with pytest.raises(ShapeError, match="map"):
        overlay(image, torch.ones(8, 7))
