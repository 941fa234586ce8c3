"""Old photos: damage, grey and small size as one operator, and the classical restoration to compare with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from deqir import classical, operators
from deqir.errors import OptionError
from deqir.operators import LinearOperator

DETECT = "detect"
TELEA_RADIUS = 3
TRAVEL: Mapping[str, int] = {"travel_length": 5, "travel_repeat": 2}
"""The time travel of old photos where none is asked for."""


def old_photo_operator(mask: Tensor, scale: int, weights: str | None) -> LinearOperator:
    """What a photo went through on the way to its scan of the size of ``mask`` (1, 1, h, w).

    It was made ``scale`` times smaller (the mean of every block), grey by ``weights`` (None: it kept its colours), and
    lost the pixels where the mask is 0. The pseudo-inverse is in closed form. Fading and grain are not in it: the one
    is undone in the observation, the other is its noise.
    """
    if scale < 1:
        raise OptionError(f"scale is {scale}; choose 1 (the size of the scan) or a larger whole number")
    operator: LinearOperator = operators.Denoising() if scale == 1 else operators.SuperResolution(scale)
    if weights is not None:
        operator = operators.Colorization(weights) @ operator
    return operators.Inpainting(mask) @ operator


def classical_old_photo(y: Tensor, mask: Tensor, scale: int, colour: bool, noise: float) -> Tensor:
    """OpenCV's inpainting (Telea 2004), then non-local means, then bicubic enlargement; grey stays grey.

    ``y`` (B, C, h, w) in [0, 1], ``mask`` (1, 1, h, w) with 1 where it is known; the result is (B, C, H, W).
    """
    import cv2

    holes = (mask[0, 0] == 0).cpu().numpy().astype(np.uint8)
    filled = []
    for image in (255 * (y * mask.to(y)).detach().clamp(0, 1)).round().cpu().to(torch.uint8):
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        painted = np.asarray(cv2.inpaint(pixels, holes, TELEA_RADIUS, cv2.INPAINT_TELEA)).reshape(pixels.shape)
        filled.append(torch.from_numpy(painted).permute(2, 0, 1) / 255)
    clean = torch.stack(filled).to(y)
    if noise:
        clean = classical.non_local_means(clean, noise)
    if scale > 1:
        clean = classical.bicubic_upsampling(clean, scale, (scale * y.shape[2], scale * y.shape[3]))
    return classical.grey_colorization(clean) if colour else clean
