"""What a checkpoint file does not tell and its owner may: heads, attention order, schedule, prediction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from deqir.errors import OptionError
from deqir.priors.denoiser import Prediction
from deqir.schedule import NoiseSchedule, ScheduleName


@dataclass(frozen=True, eq=False)
class CheckpointOptions:
    """Overrides of what is read or assumed about a prior; None leaves it to the checkpoint. Names as in OpenAI's flags.

    ``num_heads``, ``num_head_channels``, ``num_heads_upsample``, ``use_new_attention_order``: the attention layers of a
    guided-diffusion checkpoint. ``image_size``: pixels a side that it was trained on. ``schedule``: a NoiseSchedule or
    one of linear, scaled_linear, cosine, sigmoid, with ``diffusion_steps`` timesteps; ``rescale_timesteps``: whether
    the network sees timesteps scaled to 0..1000. ``prediction``: epsilon, sample or v_prediction. ``null_label``: the
    class that stands for no class. ``channels``: image channels, for a callable. ``ema``: whether averaged weights are
    preferred where a file has both. ``max_parameters``: the largest network that is built for a file, whatever the file
    says of itself. Raises OptionError for a value that no checkpoint can have.
    """

    num_heads: int | None = None
    num_head_channels: int | None = None
    num_heads_upsample: int | None = None
    use_new_attention_order: bool | None = None
    image_size: int | None = None
    schedule: NoiseSchedule | ScheduleName | None = None
    diffusion_steps: int | None = None
    rescale_timesteps: bool | None = None
    prediction: Prediction | None = None
    null_label: int | None = None
    channels: int | None = None
    ema: bool = True
    max_parameters: int = 4_000_000_000

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str):
            NoiseSchedule.named(self.schedule, self.diffusion_steps or 1000)
        if self.prediction is not None and self.prediction not in get_args(Prediction):
            raise OptionError(f"prediction is {self.prediction!r}; choose one of {', '.join(get_args(Prediction))}")
        for name in (
            "num_heads",
            "num_head_channels",
            "num_heads_upsample",
            "image_size",
            "diffusion_steps",
            "channels",
            "max_parameters",
        ):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise OptionError(f"{name} is {value!r}; choose a whole number of at least 1")
        if self.num_heads is not None and self.num_head_channels is not None:
            raise OptionError("num_heads and num_head_channels are both given; choose one of them")

    @classmethod
    def from_names(cls, given: Mapping[str, Any]) -> CheckpointOptions:
        """The options ``given`` by name; raises OptionError where one has a name that is not known."""
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise OptionError(
                    f"a prior has no option {name!r}; choose one of {', '.join(known)}, label, guidance, compile"
                )
        return cls(**given)

    def refuse_others(self, taken: Collection[str], source: str) -> None:
        """Raise OptionError where an option is given that ``source``, which takes those in ``taken``, cannot use."""
        for field in fields(self):
            if field.name not in taken and getattr(self, field.name) != field.default:
                raise OptionError(f"{field.name} does not apply to {source}; leave it out")

    def chosen_schedule(self, name: str, length: int) -> NoiseSchedule:
        """The schedule asked for, else the one called ``name`` with ``length`` timesteps."""
        if isinstance(self.schedule, NoiseSchedule):
            return self.schedule
        return NoiseSchedule.named(self.schedule or name, self.diffusion_steps or length)
