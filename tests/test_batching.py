"""Batches within a limit, and smaller ones where memory runs out."""

import weakref
from itertools import pairwise

import pytest
import torch

from conftest import SHAPE, Cramped, SmoothDenoiser, all_operators, make_chain
from deqir import batching
from deqir.batching import MEMORY_SHARE, Batcher, checked_max_batch, default_max_batch, grown_limit, is_out_of_memory
from deqir.choice import choose_solver
from deqir.errors import OptionError

OPERATOR = all_operators()["sr"]


def states(count):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, *SHAPE, dtype=torch.float64, generator=generator)
    return x, torch.randint(0, 1000, (count,), generator=generator)


@pytest.mark.parametrize("max_batch", [None, 1, 4, 7, 64])
@pytest.mark.parametrize("room", [1, 2, 3, 5, 12, 100])
@pytest.mark.parametrize("count", [1, 2, 13, 32])
def test_every_state_keeps_its_place_whatever_fits(count, room, max_batch):
    x, timesteps = states(count)
    denoiser = Cramped(room=room)
    batcher = Batcher(denoiser, max_batch)
    expected = SmoothDenoiser()(x, timesteps)
    for _ in range(2):
        torch.testing.assert_close(batcher(x, timesteps), expected, rtol=1e-12, atol=1e-12)
    succeeded = [size for size in denoiser.calls if size <= room]
    failed = [size for size in denoiser.calls if size > room]
    assert sum(succeeded) == 2 * count
    assert len(failed) == batcher.halvings
    assert all(later <= earlier // 2 for earlier, later in pairwise(failed))
    assert max(denoiser.calls) <= (max_batch or count)
    if failed:
        assert denoiser.calls[: len(failed)] == failed
        assert batcher.limit(x) == max(succeeded) == failed[-1] // 2


@pytest.mark.parametrize("room", [1, 3, 8])
def test_a_chain_gives_the_same_with_little_memory(room):
    plain, cramped = make_chain(SmoothDenoiser(), OPERATOR, 0.85), make_chain(Cramped(room=room), OPERATOR, 0.85)
    ends = (torch.tensor([0, 4]), torch.tensor([10, 10]))
    expected = plain.sweep(plain.repeated_noise_start(), *ends)
    for _ in range(2):
        swept = cramped.sweep(cramped.repeated_noise_start(), *ends)
        torch.testing.assert_close(swept, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(cramped.sample(), plain.sample(), rtol=1e-12, atol=1e-12)
    calls = cramped.denoiser.calls
    assert max(calls[cramped.batcher.halvings :]) <= room


def test_memory_that_shrinks_later_loses_nothing_done_before():
    class Shrinking(Cramped):
        def __call__(self, x, timesteps):
            self.room = 8 if len(self.calls) < 2 else 3
            return super().__call__(x, timesteps)

    x, timesteps = states(30)
    denoiser = Shrinking()
    batcher = Batcher(denoiser, 8)
    torch.testing.assert_close(batcher(x, timesteps), SmoothDenoiser()(x, timesteps), rtol=1e-12, atol=1e-12)
    assert denoiser.calls == [8, 8, 8, 4, *[2] * 7]
    assert (batcher.limit(x), batcher.halvings) == (2, 2)


def test_what_a_failed_call_held_is_released_before_it_is_repeated():
    held = []

    def network(x, timesteps):
        assert all(reference() is None for reference in held)
        activations = x.clone()
        held.append(weakref.ref(activations))
        if len(x) > 2:
            raise torch.OutOfMemoryError("full")
        return x

    x, timesteps = states(9)
    assert torch.equal(Batcher(network)(x, timesteps), x)
    assert len(held) == 2 + 5


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError(), RuntimeError("MPS out of memory")])
def test_one_image_that_does_not_fit_passes_the_error_on(error):
    calls = []

    def full(x, timesteps):
        calls.append(len(x))
        raise error

    with pytest.raises(type(error)) as caught:
        Batcher(full)(*states(5))
    assert caught.value is error
    assert calls == [5, 2, 1]


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("out of memory"), KeyboardInterrupt()]
)
def test_other_errors_pass_at_once(error):
    calls = []

    def broken(x, timesteps):
        calls.append(len(x))
        raise error

    with pytest.raises(type(error)) as caught:
        Batcher(broken)(*states(5))
    assert caught.value is error
    assert calls == [5]


def test_no_states_need_no_call():
    denoiser = SmoothDenoiser()
    assert Batcher(denoiser)(*states(0)).shape == (0, *SHAPE)
    assert denoiser.calls == []


def test_what_counts_as_out_of_memory():
    linux = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
    assert is_out_of_memory(RuntimeError(linux))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("expected scalar type Float but found Half"))


def test_the_default_limit_follows_the_size_of_the_images():
    assert default_max_batch(torch.empty(1, 3, 256, 256)) == 2
    assert default_max_batch(torch.empty(1, 3, 2048, 2048)) == 1
    assert default_max_batch(torch.empty(1, 3, 256, 256, device="meta")) == 16


@pytest.mark.parametrize(
    ("start", "pixels", "images_that_fit", "expected"),
    [
        (16, 2**16, 31.5, 16),
        (16, 2**16, 33, 32),
        (16, 2**16, 1e6, 64),  # no more than GROWN_BATCH_PIXELS in one call
        (16, 2**16, 3, 16),  # never below the start
        (36, 200 * 144, 40, 36),
        (1, 2**24, 0, 1),
        (1, 2**20, 2.5, 2),
    ],
)
def test_the_limit_grows_to_a_power_of_two_that_fits(start, pixels, images_that_fit, expected):
    per_image = 10**9
    assert grown_limit(start, pixels, round(images_that_fit * per_image / MEMORY_SHARE), per_image) == expected


def test_a_call_that_takes_nothing_measurable_is_bounded_all_the_same():
    assert grown_limit(1, 2**20, 10**9, 0) == 4


def test_a_cpu_is_never_asked_about_cuda(monkeypatch):
    def asked(*arguments):
        raise AssertionError("asked about CUDA")

    for name in ("mem_get_info", "max_memory_allocated", "reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, asked)
    Batcher(Cramped(room=2))(*states(9))


@pytest.mark.parametrize(("max_batch", "expected"), [(None, 32), (5, 5)])
def test_the_limit_grows_once_to_what_memory_holds(monkeypatch, max_batch, expected):
    """CUDA's memory figures are stood in for, so that the growth itself runs anywhere."""
    asked = []

    def room_for_50(denoiser, image):
        asked.append(tuple(image.shape))
        return 50_000, 1_000

    monkeypatch.setattr(batching, "GROWING_DEVICES", ("cpu",))
    monkeypatch.setattr(batching, "_cuda_memory", room_for_50)
    monkeypatch.setattr(batching, "DEFAULT_BATCH_PIXELS", {"cpu": 2 * 8 * 8})
    x, timesteps = states(70)
    denoiser = SmoothDenoiser()
    batcher = Batcher(denoiser, max_batch)
    torch.testing.assert_close(batcher(x, timesteps), SmoothDenoiser()(x, timesteps))
    batcher(x, timesteps)
    assert max(denoiser.calls) == batcher.limit(x) == expected
    assert asked == ([] if max_batch else [(1, *x.shape[1:])])


def test_the_limit_does_not_grow_after_memory_ran_out(monkeypatch):
    monkeypatch.setattr(batching, "GROWING_DEVICES", ("cpu",))
    monkeypatch.setattr(batching, "_cuda_memory", lambda denoiser, image: (10**9, 1))
    batcher = Batcher(Cramped(room=2))
    batcher(*states(4))
    assert batcher.halvings == 1
    batcher(*states(4000))
    assert batcher.limit(states(1)[0]) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_the_limit_grows_once_and_only_where_it_is_free_to():
    x = torch.zeros(64, 3, 256, 256, device="cuda")
    timesteps = torch.zeros(64, dtype=torch.long, device="cuda")
    for max_batch, first in ((None, 1), (5, 5)):
        denoiser = SmoothDenoiser()
        batcher = Batcher(denoiser, max_batch)
        batcher(x, timesteps)
        assert denoiser.calls[0] == first
        assert max(denoiser.calls) == (batcher.limit(x) if max_batch is None else 5)
        assert batcher.limit(x) >= 16 or max_batch == 5
        before = len(denoiser.calls)
        batcher(x[:1], timesteps[:1])
        assert len(denoiser.calls) == before + 1


def test_auto_measures_again_at_the_batch_that_fits(monkeypatch):
    chain = make_chain(Cramped(room=3), OPERATOR, 0.85, steps=40)
    timed = []

    def seconds(chain, batch):
        chain.predict(*states(batch))
        timed.append(batch)
        return 1.0

    monkeypatch.setattr("deqir.choice._seconds", seconds)
    choose_solver(chain)
    assert timed == [2, 2, 4, 2]


@pytest.mark.parametrize(("given", "bound"), [(None, None), ("auto", None), (1, 1), (64, 64)])
def test_max_batch_is_auto_or_a_whole_number(given, bound):
    assert checked_max_batch(given) == bound


@pytest.mark.parametrize("given", [0, -3, 2.0, True, "8", "many"])
def test_any_other_max_batch_is_refused(given):
    with pytest.raises(OptionError, match="choose auto or a whole number of at least 1"):
        checked_max_batch(given)
