"""Fading: every channel of a photo lost contrast and gained a veil, an affine change of its tones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deqir.errors import OptionError, ShapeError

DARK, BRIGHT = 0.005, 0.995
"""The quantiles of a channel that stand for its black and its white."""
BLACK, WHITE = 0.02, 0.96
"""Where these quantiles of photographs that did not fade usually are."""
FULL_RANGE = 0.75
"""A photo whose channels span this much on average did not fade."""
DEEPEST_BLACK = 0.08
"""Nor did one whose blacks are darker than this on average: fading veils them."""
SMALLEST_GAIN = 0.1


@dataclass(frozen=True)
class Fading:
    """What fading made of the tones x of each channel: ``gain x + offset``; gains are above zero.

    Raises OptionError otherwise.
    """

    gain: tuple[float, ...]
    offset: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.gain) != len(self.offset) or not self.gain or not min(self.gain) > 0:
            raise OptionError(f"the gains are {self.gain} for offsets {self.offset}; give as many, gains above zero")

    def apply(self, photo: Tensor) -> Tensor:
        """The faded ``photo`` (B, C, H, W)."""
        return photo * self._column(self.gain, photo) + self._column(self.offset, photo)

    def undo(self, faded: Tensor) -> Tensor:
        """The photo behind ``faded`` (B, C, H, W), not clipped."""
        return (faded - self._column(self.offset, faded)) / self._column(self.gain, faded)

    def for_channels(self, count: int) -> Fading:
        """This fading for ``count`` channels: itself, or for one channel its mean."""
        if count == len(self.gain):
            return self
        mean = sum(self.gain) / len(self.gain), sum(self.offset) / len(self.offset)
        return Fading((mean[0],) * count, (mean[1],) * count)

    def _column(self, values: tuple[float, ...], like: Tensor) -> Tensor:
        if like.ndim != 4 or like.shape[1] != len(values):
            raise ShapeError(f"the photo has shape {tuple(like.shape)}; give (B, {len(values)}, H, W)")
        return like.new_tensor(values).view(-1, 1, 1)


def estimate_fading(photo: Tensor, known: Tensor) -> Fading | None:
    """The fading of ``photo`` (1, C, H, W) in [0, 1] by its darkest and brightest tones; None where it did not fade.

    Only pixels where ``known`` (1, 1, H, W) is 1 count, each the median of 3 x 3, for grain widens the range. The
    0.5% and 99.5% quantiles of every channel are taken for what was 0.02 and 0.96. This is the classical "auto levels":
    it also removes the cast of a scene that has one, and cannot know a scene without black or white. A photo whose
    channels span 0.75 or more on average, or whose blacks are at 0.08 or below, counts as not faded.
    """
    import cv2

    image = photo[0].detach().cpu().float().permute(1, 2, 0).contiguous().numpy()
    smooth = np.asarray(cv2.medianBlur(image, 3)).reshape(image.shape)
    tones = torch.from_numpy(smooth).double()[known[0, 0].cpu() > 0]
    if not len(tones):
        raise OptionError("no pixel is known, so the fading is not; give a mask with white where the photo is whole")
    darks = np.quantile(tones.numpy(), DARK, axis=0)
    brights = np.quantile(tones.numpy(), BRIGHT, axis=0)
    if float((brights - darks).mean()) >= FULL_RANGE or float(darks.mean()) <= DEEPEST_BLACK:
        return None
    gains = ((brights - darks) / (WHITE - BLACK)).clip(SMALLEST_GAIN)
    return Fading(tuple(gains.tolist()), tuple((darks - gains * BLACK).tolist()))
