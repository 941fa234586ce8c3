import pytest
import torch

from deqir.errors import OptionError
from deqir.schedule import NoiseSchedule


def test_linear_schedule_is_ddpms():
    alphas = NoiseSchedule.linear().alphas_cumprod
    assert alphas.dtype == torch.float64
    assert alphas[0] == pytest.approx(1 - 1e-4)
    assert alphas[-1] == pytest.approx(4.0358e-5, rel=1e-4)


@pytest.mark.parametrize("spacing", ["cubic", "quadratic", "leading", "trailing", "linspace", "uniform"])
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


def test_a_list_of_timesteps_is_taken_as_it_is():
    schedule = NoiseSchedule.linear(1000)
    levels = schedule.levels(100, [999, 10, 0])
    assert levels.timesteps.tolist() == [999, 10, 0]
    torch.testing.assert_close(levels.alphas[:-1], schedule.alphas_cumprod[[999, 10, 0]])
    assert levels.alphas[-1] == 1


@pytest.mark.parametrize("timesteps", [[], [5, 5], [1, 2], [1000, 3], [3, -1]])
def test_a_list_that_does_not_descend_inside_the_schedule(timesteps):
    with pytest.raises(OptionError, match=r"do not descend inside 999 \.\. 0; list at least one"):
        NoiseSchedule.linear(1000).levels(10, timesteps)


def test_named_schedules():
    """Cosine: cos^2 of time, save where betas are capped; sigmoid: half the range is spent in the middle."""
    cosine = NoiseSchedule.named("cosine", 100).alphas_cumprod
    angle = torch.tensor((50 / 100 + 0.008) / 1.008 * torch.pi / 2)
    start = torch.tensor(0.008 / 1.008 * torch.pi / 2)
    assert cosine[49] == pytest.approx(float(angle.cos() ** 2 / start.cos() ** 2), rel=1e-5)
    assert cosine[99] / cosine[98] == pytest.approx(0.001)
    betas = 1 - NoiseSchedule.named("sigmoid", 101).alphas_cumprod[1:] / NoiseSchedule.sigmoid(101).alphas_cumprod[:-1]
    assert betas[49] == pytest.approx((1e-4 + 0.02) / 2)
    roots = (1 - NoiseSchedule.scaled_linear(3).alphas_cumprod.log().diff().exp()).sqrt()
    assert roots.tolist() == pytest.approx([(0.01 + 0.02**0.5) / 2, 0.02**0.5])
    for name, length, message in (
        ("wavy", 10, "schedule is 'wavy'; choose one of linear"),
        ("cosine", 0, "0 timesteps"),
    ):
        with pytest.raises(OptionError, match=message):
            NoiseSchedule.named(name, length)


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
