"""Tiles: a partition of unity, no seams, bounded calls, and exactly the untiled result where one tile is enough."""

from itertools import pairwise

import pytest
import torch

from conftest import Cramped, SmoothDenoiser, make_chain
from deqir import choice, load_prior
from deqir.choice import choose_solver, parallel_bytes
from deqir.errors import OptionError
from deqir.noise import generator
from deqir.operators import Denoising, SuperResolution
from deqir.restoration import Restorer
from deqir.tiling import TiledDenoiser, choose_tile, tiled_axis


def states(height, width, count=2, channels=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, channels, height, width, dtype=torch.float64, generator=generator)
    return x, torch.randint(0, 1000, (count,), generator=generator)


class Pointwise(SmoothDenoiser):
    """A denoiser that looks at one pixel at a time, for which tiles change nothing but rounding."""

    def __call__(self, x, timesteps):
        self.calls.append(len(x))
        return torch.sin(x) * timesteps.view(-1, 1, 1, 1)


class Bumps(SmoothDenoiser):
    """A denoiser that answers with the position in its tile: the worst there is for seams."""

    def __call__(self, x, timesteps):
        return torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype).expand(x.shape)


@pytest.mark.parametrize("overlap", [0, 1, 4, 8])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 24, 31, 33, 100, 1000])
def test_tiles_cover_every_pixel_with_weights_that_sum_to_one(size, overlap):
    axis = tiled_axis(size, 16, overlap)
    total = torch.zeros(size, dtype=torch.float64)
    for k in range(len(axis)):
        assert axis.pixels(k).stop <= size
        total[axis.pixels(k)] += axis.weights[k]
    assert bool((axis.weights > 0).all())
    torch.testing.assert_close(total, torch.ones_like(total))
    assert axis.starts[0] == 0 and axis.pixels(len(axis) - 1).stop == size
    assert all(16 - (after - before) >= overlap for before, after in pairwise(axis.starts))
    fewer = len(axis) - 1
    assert fewer == 0 or fewer * (16 - overlap) + overlap < size


@pytest.mark.parametrize("shape", [(17, 40), (8, 33), (64, 1), (40, 40)])
@pytest.mark.parametrize("max_batch", [1, 3, None])
def test_a_pointwise_denoiser_does_not_notice_the_tiles(shape, max_batch):
    x, timesteps = states(*shape)
    denoiser = Pointwise()
    tiled = TiledDenoiser(denoiser, 16, 4, max_batch)
    torch.testing.assert_close(tiled(x, timesteps), Pointwise()(x, timesteps))
    assert max(denoiser.calls) <= (max_batch or 1000)
    assert max_batch is None or max(denoiser.calls) == max_batch


def test_the_tiles_of_all_states_share_batches():
    x, timesteps = states(24, 24, count=5)
    denoiser = Pointwise()
    TiledDenoiser(denoiser, 16, 4, 7)(x, timesteps)
    assert denoiser.calls == [7, 7, 6]


def test_tiles_that_do_not_fit_into_memory_come_in_smaller_batches():
    x, timesteps = states(24, 24)
    tiled = TiledDenoiser(Cramped(room=3), 16, 4, 8)
    roomy = TiledDenoiser(Cramped(room=100), 16, 4, 8)
    torch.testing.assert_close(tiled(x, timesteps), roomy(x, timesteps), rtol=1e-12, atol=1e-12)
    assert (tiled.limit(x), tiled.batcher.halvings) == (2, 2)


@pytest.mark.parametrize("shape", [(16, 16), (9, 13), (16, 5)])
def test_an_image_within_one_tile_is_exactly_the_untiled_one(network, shape):
    x, timesteps = states(*shape)
    assert torch.equal(TiledDenoiser(network, 16)(x, timesteps), network(x, timesteps))


def test_a_restoration_within_one_tile_is_exactly_the_untiled_one(network):
    y = torch.rand(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options = {"steps": 4, "dtype": "float64", "solver": "serial"}
    images = [Restorer(network, SuperResolution(2), tile=tile, **options).restore(y) for tile in (8, None, "auto")]
    assert all(torch.equal(images[0].image, other.image) for other in images[1:])
    assert [image.stats.tile for image in images] == [None] * 3


def test_serial_and_parallel_agree_on_tiles(network):
    y = torch.rand(1, 3, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options = {"steps": 5, "dtype": "float64", "tile": 8, "tile_overlap": 3, "tolerance": 0, "max_batch": 3}
    serial, parallel = (
        Restorer(network, Denoising(), noise=0.1, solver=solver, **options).restore(y)
        for solver in ("serial", "picard")
    )
    torch.testing.assert_close(parallel.image, serial.image, rtol=1e-9, atol=1e-9)
    assert (serial.stats.tile, serial.stats.max_batch) == (8, 3)


def test_the_blend_of_tiles_that_disagree_is_smooth():
    x, timesteps = states(16, 96, count=1)
    blended = TiledDenoiser(Bumps(), 16, 8)(x, timesteps)[0, 0, 0]
    assert blended.diff().abs().max() < 0.4  # two tiles differ by about 1 where they meet
    assert TiledDenoiser(Bumps(), 16, 0)(x, timesteps)[0, 0, 0].diff().abs().max() > 1.5


def test_gradients_pass_through_the_tiles(network):
    x, timesteps = states(11, 9, count=1)
    tiled = TiledDenoiser(network, 8, 2, 2)
    x.requires_grad_()
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((tiled(x, timesteps) * direction).sum(), x)
    step = 1e-6 * direction
    with torch.no_grad():
        difference = tiled(x + step, timesteps) - tiled(x - step, timesteps)
    torch.testing.assert_close((gradient * 2 * step).sum(), (difference * direction).sum(), rtol=1e-5, atol=0)


def border_jump(image, tile, overlap):
    """The mean jump of ``image`` across tile borders over that elsewhere, along both axes."""
    across, elsewhere = [], []
    for axis in (-2, -1):
        jumps = image.movedim(axis, -1).diff(dim=-1).abs().mean((0, 1, 2))
        starts = tiled_axis(image.shape[axis], tile, overlap).starts
        ends = {k for start in starts for k in (start - 1, start + tile - 1)}
        border = torch.tensor([k in ends for k in range(len(jumps))])
        across.append(jumps[border])
        elsewhere.append(jumps[~border])
    return float(torch.cat(across).mean() / torch.cat(elsewhere).mean())


@pytest.mark.parametrize(("overlap", "least", "most"), [(None, 0.5, 1.1), (0, 1.5, 5)])
def test_overlapping_tiles_leave_no_seam_in_a_restored_photo(overlap, least, most):
    """The restoration's error jumps no more across tile borders than inside; where tiles only touch, it does."""
    from skimage import data

    truth = torch.from_numpy(data.astronaut()[:128, 100:292].copy()).permute(2, 0, 1).float()[None] / 255
    y = truth + 0.2 * torch.randn(truth.shape, generator=generator(0, "observation"))
    options = {"steps": 6, "eta": 0.0, "noise": 0.2, "solver": "serial"}
    restored = Restorer(load_prior(), Denoising(), tile=64, tile_overlap=overlap, **options).restore(y).image
    assert least < border_jump(restored - truth, 64, 8 if overlap is None else overlap) < most


def test_auto_cuts_large_images_alone(network):
    prior = load_prior()
    assert (network.tile_size, prior.tile_size) == (8, 256)
    assert choose_tile(network, (128, 128), "auto") is None
    assert choose_tile(network, (128, 129), "auto") == 64
    assert choose_tile(prior, (512, 512), "auto") is None
    assert choose_tile(prior, (513, 512), "auto") == 256
    assert choose_tile(prior, (1, 100_000), "auto") is None
    assert choose_tile(prior, (1, 300_000), "auto") == 256
    assert choose_tile(SmoothDenoiser(), (2000, 2000), "auto") == 256
    assert choose_tile(prior, (2000, 2000), None) is None
    assert choose_tile(prior, (64, 65), 64) == 64
    assert choose_tile(prior, (64, 64), 64) is None


@pytest.mark.parametrize(("tile", "overlap"), [(7, None), (True, None), ("large", None), (64, -1), (64, 33), (64, 2.5)])
def test_other_tiles_are_refused(network, tile, overlap):
    with pytest.raises(OptionError, match="; choose"):
        Restorer(network, Denoising(), tile=tile, tile_overlap=overlap)


def test_auto_is_serial_where_the_states_do_not_fit(monkeypatch):
    chain = make_chain(SmoothDenoiser(), SuperResolution(2), 0.85, steps=40)
    monkeypatch.setattr(choice, "_seconds", lambda chain, batch: 1 / batch)
    assert parallel_bytes(chain) == 21 * 40 * 2 * 3 * 8 * 8 * 8
    for free, expected in ((parallel_bytes(chain), "serial"), (2 * parallel_bytes(chain), "preconditioned")):
        monkeypatch.setattr(choice, "free_bytes", lambda device, free=free: free)
        assert choose_solver(chain).solver == expected
    monkeypatch.setattr(choice, "free_bytes", lambda device: 1)
    assert choose_solver(chain).reason == "a parallel solve would hold 0.0 GB of states, and 0.0 GB are free"


def test_the_free_memory_of_this_machine_is_known():
    free = choice.free_bytes(torch.device("cpu"))
    assert free is not None and 2**20 < free < 2**50
    assert choice.free_bytes(torch.device("meta")) is None
