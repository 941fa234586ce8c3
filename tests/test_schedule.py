import pytest
import torch

from deqir.errors import OptionError
from deqir.schedule import NoiseSchedule


def test_linear_schedule_is_ddpms():
    alphas = NoiseSchedule.linear().alphas_cumprod
    assert alphas.dtype == torch.float64
    assert alphas[0] == pytest.approx(1 - 1e-4)
    assert alphas[-1] == pytest.approx(4.0358e-5, rel=1e-4)


@pytest.mark.parametrize("spacing", ["cubic", "quadratic", "leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 99, 100])
def test_timesteps_descend_inside_the_schedule(spacing, steps):
    levels = NoiseSchedule.linear(100).levels(steps, spacing)
    timesteps = levels.timesteps
    assert len(levels) == steps == len(timesteps)
    assert (timesteps.diff() < 0).all()
    assert timesteps.min() >= 0
    assert timesteps.max() <= 99
    assert levels.alphas[-1] == 1
    assert (levels.alphas.diff() > 0).all()


def test_known_timesteps():
    schedule = NoiseSchedule.linear(1000)
    assert schedule.levels(4, "leading").timesteps.tolist() == [750, 500, 250, 0]
    assert schedule.levels(4, "trailing").timesteps.tolist() == [999, 749, 499, 249]
    assert schedule.levels(3, "linspace").timesteps.tolist() == [999, 500, 0]


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_outside_the_schedule(steps):
    with pytest.raises(OptionError, match=f"steps is {steps}; choose a number from 1 to 1000"):
        NoiseSchedule.linear().levels(steps)


def test_unknown_spacing():
    with pytest.raises(OptionError, match="'sextic'; choose one of cubic"):
        NoiseSchedule.linear().levels(10, "sextic")


@pytest.mark.parametrize("alphas", [[], [0.5, 0.6], [1.0, 0.5], [0.5, 0.0], [0.5, float("nan")]])
def test_senseless_alphas(alphas):
    with pytest.raises(OptionError, match="alphas_cumprod"):
        NoiseSchedule(torch.tensor(alphas, dtype=torch.float64))
