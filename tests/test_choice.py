"""``auto``: what it measures, what that may cost, and what it concludes for devices of all kinds."""

import pytest
import torch

from conftest import SmoothDenoiser, all_operators, make_chain
from deqir import choice
from deqir.choice import Timings, choose_solver, expected_evaluations, expected_sweeps
from deqir.operators import SuperResolution
from deqir.restoration import Restorer

OPERATOR = all_operators()["sr"]


class Device:
    """A device on which a call of n images takes ``overhead + max(n, lanes) * each`` seconds."""

    def __init__(self, monkeypatch, overhead, each, lanes=1):
        self.overhead, self.each, self.lanes, self.calls = overhead, each, lanes, []
        monkeypatch.setattr(choice, "_seconds", lambda chain, batch: self.timed(batch))
        monkeypatch.setattr(choice, "free_bytes", lambda device: None)

    def seconds(self, batch):
        return self.overhead + max(batch, self.lanes) * self.each

    def timed(self, batch):
        self.calls.append(batch)
        return self.seconds(batch)

    def parallel(self, steps, window):
        """What a solve would really take if it went as it is expected to."""
        sweeps = expected_sweeps(steps, window)
        return sweeps * self.seconds(min(window, expected_evaluations(steps, window) / sweeps))


def chain(steps=100, images=1, denoiser=None):
    return make_chain(denoiser or SmoothDenoiser(), OPERATOR, 0.85, steps=steps, images=images)


def test_a_device_on_which_a_batch_costs_as_much_as_its_images(monkeypatch):
    device = Device(monkeypatch, 0.0, 1.0)
    chosen = choose_solver(chain())
    assert (chosen.solver, chosen.window) == ("serial", None)
    assert sum(device.calls) == 4  # four evaluations of a hundred
    assert chosen.reason.startswith("expected 100.0 s serial and")


def test_a_device_that_computes_everything_at_once_needs_no_window(monkeypatch):
    Device(monkeypatch, 1.0, 0.0)
    chosen = choose_solver(chain())
    assert (chosen.solver, chosen.window) == ("preconditioned", None)
    assert "in a window" not in chosen.reason


@pytest.mark.parametrize("lanes", [8, 16, 32])
def test_a_device_with_lanes_gets_a_window_that_fills_them(monkeypatch, lanes):
    """A few per cent from the best that this window could be, with a time that no other window beats by more."""
    device = Device(monkeypatch, 0.0, 1 / lanes, lanes)
    monkeypatch.setattr(choice, "CALIBRATION_SHARE", 10)
    chosen = choose_solver(chain(250))
    assert chosen.solver == "preconditioned" and lanes / 2 <= chosen.window <= 4 * lanes
    best = min(device.parallel(250, w) for w in (4, 8, 16, 32, 64, 128, 250))
    assert device.parallel(250, chosen.window) <= 1.3 * best
    assert f"in a window of {chosen.window} timesteps" in chosen.reason


@pytest.mark.parametrize("device", [(0.0, 1.0), (1.0, 0.0), (1.0, 0.05), (1.0, 0.3)])
@pytest.mark.parametrize("steps", [80, 250, 1000])
def test_measuring_costs_a_twentieth_of_the_serial_chain(monkeypatch, steps, device):
    device = Device(monkeypatch, *device)
    choose_solver(chain(steps))
    assert sum(map(device.seconds, device.calls)) <= 0.05 * steps * device.seconds(1)


def test_several_images_travel_together(monkeypatch):
    device = Device(monkeypatch, 0.0, 1.0)
    choose_solver(chain(images=3))
    assert device.calls == [3, 3, 6]


def test_a_window_that_is_asked_for_is_the_only_one(monkeypatch):
    Device(monkeypatch, 1.0, 0.0)
    assert choose_solver(chain(), window=12).window == 12
    assert choose_solver(chain(), window=200).window is None
    Device(monkeypatch, 0.0, 1.0)
    assert choose_solver(chain(), window=12).solver == "serial"


@pytest.mark.parametrize("bounded", [False, True])
def test_memory_bounds_the_window_where_a_window_bounds_memory(monkeypatch, bounded):
    Device(monkeypatch, 1.0, 0.0)
    whole = choice.parallel_bytes(chain())
    assert choice.parallel_bytes(chain(), 20) * 5 == whole
    monkeypatch.setattr(choice, "free_bytes", lambda device: int(whole / 5))
    chosen = choose_solver(chain(), bounded=bounded)
    assert chosen.window == 8 if bounded else chosen.solver == "serial"
    assert "would hold" not in chosen.reason if bounded else "would hold 0.0 GB" in chosen.reason
    monkeypatch.setattr(choice, "free_bytes", lambda device: 1)
    assert choose_solver(chain(), bounded=True).solver == "serial"


def test_nothing_to_parallelise():
    assert choose_solver(chain(1)).solver == "serial"
    alone = make_chain(SmoothDenoiser(), OPERATOR, 0.0, images=1, max_batch=1)
    assert choose_solver(alone).reason.startswith("one batch holds no more than one timestep")


def test_times_in_between_and_beyond():
    timings = Timings((2, 8, 32), (1.0, 1.6, 4.0), 42)
    expected = {1: 1.0, 2: 1.0, 5: 1.3, 8: 1.6, 20: 2.8, 32: 4.0, 42: 5.0, 84: 10.0}
    assert {n: pytest.approx(timings.at(n)) for n in expected} == expected
    alone = Timings((3,), (2.0,), 100)
    assert alone.at(6) == 4.0 and alone.at(1) == 2.0


@pytest.mark.parametrize(
    ("steps", "window", "sweeps", "evaluations"),
    [
        (25, 8, 11, 2.9),
        (50, 16, 14, 3.7),
        (100, 20, 24, 4.1),
        (250, 16, 58, 3.8),
        (250, 64, 27, 5.6),
        (100, 100, 12, 6),
    ],
)
def test_what_is_expected_is_near_what_was_measured(steps, window, sweeps, evaluations):
    assert expected_sweeps(steps, window) == pytest.approx(sweeps, rel=0.25)
    assert expected_evaluations(steps, window) == pytest.approx(evaluations * steps, rel=0.15)


def test_the_restorer_takes_the_window_and_says_so(monkeypatch):
    Device(monkeypatch, 0.0, 1 / 16, 16)
    monkeypatch.setattr(choice, "CALIBRATION_SHARE", 10)
    denoiser = SmoothDenoiser()
    y = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    restorer = Restorer(denoiser, SuperResolution(2), steps=100, device="cpu")
    result = restorer.restore(y)
    assert result.stats.solver == "preconditioned" and result.stats.window in (8, 16, 32, 64)
    assert f"in a window of {result.stats.window} timesteps" in result.stats.reason
    assert max(denoiser.calls) <= result.stats.window
    serial = Restorer(SmoothDenoiser(), SuperResolution(2), steps=100, device="cpu", solver="serial").restore(y)
    assert (result.image - serial.image).square().mean().sqrt() * 255 <= 0.5
    assert serial.stats.window is None
