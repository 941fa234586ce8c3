"""The five held-out photographs of the benchmarks: 256-pixel centre crops of images that ship with libraries."""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 256


def held_out_photos(side: int = SIDE) -> dict[str, Tensor]:
    """scikit-image's astronaut, coffee and chelsea, scikit-learn's china and flower: (3, side, side) in [0, 1]."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    arrays = {
        "astronaut": data.astronaut(),
        "coffee": data.coffee(),
        "chelsea": data.chelsea(),
        "china": load_sample_image("china.jpg"),
        "flower": load_sample_image("flower.jpg"),
    }
    photos = {}
    for name, array in arrays.items():
        top, left = ((size - side) // 2 for size in array.shape[:2])
        crop = array[top : top + side, left : left + side]
        photos[name] = torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 255
    return photos
