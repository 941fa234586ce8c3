"""What no tensor tells about a guided-diffusion model: the settings of the published ones, by their shapes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from deqir.priors.denoiser import Prediction
from deqir.schedule import NoiseSchedule

IMAGE_SIZES: dict[tuple[float, ...], int] = {
    (0.5, 1, 1, 2, 2, 4, 4): 512,
    (1, 1, 2, 2, 4, 4): 256,
    (1, 1, 2, 3, 4): 128,
    (1, 2, 3, 4): 64,
    (1, 2, 2, 2): 32,
}
"""The image size that a row of channel multipliers stands for in guided-diffusion and improved-diffusion."""


@dataclass(frozen=True, eq=False)
class Settings:
    """How a model was built and trained beyond its tensors.

    Heads: ``num_head_channels`` channels each, else ``num_heads`` of them (``num_heads_upsample`` on the way up);
    neither: unknown. ``linear``: the schedule is the code's linear one.
    """

    num_heads: int | None = None
    num_head_channels: int | None = None
    num_heads_upsample: int | None = None
    new_attention_order: bool = False
    image_size: int | None = None
    linear: bool = True
    rescale_timesteps: bool = False
    prediction: Prediction = "epsilon"
    null_label: int | None = None
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule.linear)

    def heads(self, channels: int, up: bool) -> int:
        """The heads of an attention layer with ``channels`` channels, on the way ``up`` or not."""
        if self.num_head_channels is not None:
            return max(1, channels // self.num_head_channels)
        return (up and self.num_heads_upsample) or self.num_heads or 1


def published_settings(
    base: int, multipliers: tuple[float, ...], blocks: int, resnet: bool, classes: int | None
) -> Settings:
    """The settings of the published model with ``base`` channels times ``multipliers``, ``blocks`` blocks a level.

    From the flags in the two repositories' READMEs, ILVR's and P2-weighting's. Other models get a linear schedule of
    1000 steps, the legacy attention order and no heads.
    """
    size = IMAGE_SIZES.get(multipliers)
    known = _guided(base, size, blocks) if resnet else _improved(base, size, blocks)
    return replace(known or Settings(), image_size=size, null_label=classes - 1 if classes == 1001 else None)


def _guided(base: int, size: int | None, blocks: int) -> Settings | None:
    """guided-diffusion's models, whose resolution changes inside residual blocks."""
    known: dict[tuple[int, int | None, int], Settings] = {
        (192, 64, 3): Settings(
            num_head_channels=64, new_attention_order=True, linear=False, schedule=NoiseSchedule.cosine()
        ),
        (256, 128, 2): Settings(num_heads=4),
        (256, 256, 2): Settings(num_head_channels=64),
        (256, 512, 2): Settings(num_head_channels=64),
        (128, 256, 1): Settings(num_head_channels=64),  # ffhq_10m, P2-weighting
    }
    return known.get((base, size, blocks))


def _improved(base: int, size: int | None, blocks: int) -> Settings | None:
    """improved-diffusion's models, whose resolution changes in convolutions."""
    cosine = Settings(num_heads=4, linear=False, schedule=NoiseSchedule.cosine(4000))
    known: dict[tuple[int, int | None, int], Settings] = {
        (128, 64, 3): replace(cosine, rescale_timesteps=True),
        (128, 32, 3): replace(cosine, rescale_timesteps=True),
        (192, 64, 3): cosine,
        (128, 256, 2): Settings(num_heads=1),
    }
    return known.get((base, size, blocks))
