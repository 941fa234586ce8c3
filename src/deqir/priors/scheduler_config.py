"""diffusers' scheduler_config.json: noise schedule and prediction type, read and written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from deqir.errors import DeqirError, UnsupportedCheckpointError
from deqir.images.files import one_line
from deqir.priors.denoiser import Prediction
from deqir.schedule import NoiseSchedule

NAMES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine", "sigmoid": "sigmoid"}
"""diffusers' names of beta schedules and ours."""

FAINTEST_SIGNAL = 2.0**-24
"""abar of the last timestep where the betas are rescaled to leave no signal, as in diffusers' Euler schedulers."""

VARIANCE_EXPLODING = "ScoreSdeVeScheduler"

MOST_TIMESTEPS = 100_000
"""More of them in a configuration are taken for damage."""


def read_schedule(config: dict[str, Any], file: Path) -> tuple[NoiseSchedule, Prediction]:
    """Noise schedule and prediction type of a scheduler configuration.

    Raises UnsupportedCheckpointError where deqir has no equal of it.
    """
    kind = str(config.get("_class_name", "DDPMScheduler"))
    if not {"beta_schedule", "beta_start", "trained_betas"} & config.keys() and "_class_name" in config:
        raise UnsupportedCheckpointError(
            f"{file} is a {kind}, whose noise levels are no DDPM schedule; "
            "give a model trained as DDPM, DDIM or VE score model"
        )
    prediction: Prediction = config.get("prediction_type", "epsilon")
    if prediction not in get_args(Prediction):
        raise UnsupportedCheckpointError(
            f"{file} names the prediction type {prediction!r}; deqir knows {', '.join(get_args(Prediction))}"
        )
    with _sound_numbers(file):
        schedule = NoiseSchedule.from_betas(_betas(config, file))
    if not config.get("rescale_betas_zero_snr"):
        return schedule, prediction
    if prediction == "epsilon":
        raise UnsupportedCheckpointError(
            f"{file} rescales its betas to leave no signal, where a noise prediction tells nothing of the image; "
            "give a model that predicts the sample or v"
        )
    return _without_signal_at_the_end(schedule), prediction


def _betas(config: dict[str, Any], file: Path) -> Tensor:
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float64)
    length = _length(config, 1000)
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if kind not in NAMES:
        raise UnsupportedCheckpointError(
            f"{file} names the beta schedule {kind!r}; deqir knows {', '.join(NAMES)} and trained_betas"
        )
    if kind == "squaredcos_cap_v2":
        return betas_of(NoiseSchedule.cosine(length))
    made = {
        "linear": NoiseSchedule.linear,
        "scaled_linear": NoiseSchedule.scaled_linear,
        "sigmoid": NoiseSchedule.sigmoid,
    }
    return betas_of(made[kind](length, start, end))


@contextmanager
def _sound_numbers(file: Path) -> Iterator[None]:
    """Turn what numbers of another kind or size raise into one sentence."""
    try:
        yield
    except DeqirError:
        raise
    except (ArithmeticError, TypeError, ValueError) as error:
        raise UnsupportedCheckpointError(
            f"{file} holds a number that does not fit ({one_line(error)}); save the prior again"
        ) from None


def _length(config: dict[str, Any], default: int) -> int:
    length = int(config.get("num_train_timesteps", default))
    if not 1 <= length <= MOST_TIMESTEPS:
        raise ValueError(f"num_train_timesteps is {length}, not within 1 to {MOST_TIMESTEPS}")
    return length


def read_exploding_schedule(config: dict[str, Any], file: Path) -> NoiseSchedule:
    """The schedule with the noise-to-signal ratios of a ``ScoreSdeVeScheduler``: noise levels in geometric progression.

    The levels are for images in [0, 1], as these models see them, so the ratio in [-1, 1] is twice the level.
    """
    with _sound_numbers(file):
        lowest, highest = float(config.get("sigma_min", 0.01)), float(config.get("sigma_max", 1348.0))
        sigmas = lowest * (highest / lowest) ** torch.linspace(0, 1, _length(config, 2000), dtype=torch.float64)
        return NoiseSchedule(1 / (1 + (2 * sigmas).square()))


def betas_of(schedule: NoiseSchedule) -> Tensor:
    """The per-step variances (T,) of ``schedule``."""
    alphas = schedule.alphas_cumprod
    return 1 - alphas / torch.cat([alphas.new_ones(1), alphas[:-1]])


def _without_signal_at_the_end(schedule: NoiseSchedule) -> NoiseSchedule:
    """sqrt(abar) shifted and scaled to fall to zero at the last timestep (arXiv 2305.08891, alg. 1), almost."""
    root = schedule.alphas_cumprod.sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alphas = root.square()
    alphas[-1] = min(FAINTEST_SIGNAL, float(alphas[-2]) / 2) if len(alphas) > 1 else FAINTEST_SIGNAL
    return NoiseSchedule(alphas)


def scheduler_arguments(schedule: NoiseSchedule, prediction: Prediction, learned_variance: bool) -> dict[str, Any]:
    """The arguments of diffusers' ``DDPMScheduler`` with this schedule: its name where it has one, else its betas."""
    length = len(schedule)
    arguments: dict[str, Any] = {
        "num_train_timesteps": length,
        "prediction_type": prediction,
        "variance_type": "learned_range" if learned_variance else "fixed_small",
    }
    for theirs, ours in NAMES.items():
        if torch.allclose(NoiseSchedule.named(ours, length).alphas_cumprod, schedule.alphas_cumprod, 1e-12, 0):
            return arguments | {"beta_schedule": theirs}
    return arguments | {"trained_betas": betas_of(schedule).tolist()}
