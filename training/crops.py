"""Random training crops: crop number n is a function of (seed, n) alone, so a resumed run sees the same ones."""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

GREY_FRACTION = 0.04


class PhotographCrops(Dataset[torch.Tensor]):
    """``length`` crops of ``size`` pixels, float32 (3, size, size) in [-1, 1], photograph and scale uniform.

    Augmentation: the eight symmetries of the square, a mild gain and gamma per channel, and a few crops in grey.
    """

    def __init__(self, folder: Path, size: int, length: int, seed: int, first: int = 0):
        files = sorted(folder.glob("*.npy"))
        if not files:
            raise FileNotFoundError(f"no .npy photographs in {folder}; run training/prepare.py first")
        photographs: dict[str, list[np.ndarray]] = {}
        for file in files:
            image = np.load(file)
            if min(image.shape[:2]) >= size:
                photographs.setdefault(file.stem.rpartition("-")[0], []).append(image)
        self.photographs = list(photographs.values())
        self.size, self.length, self.seed, self.first = size, length, seed, first

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        rng = np.random.default_rng((self.seed, self.first + index))
        scales = self.photographs[rng.integers(len(self.photographs))]
        image = scales[rng.integers(len(scales))]
        top, left = (int(rng.integers(side - self.size + 1)) for side in image.shape[:2])
        crop = image[top : top + self.size, left : left + self.size].astype(np.float32) / 255
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        crop = np.rot90(crop, int(rng.choice([0, 0, 0, 1, 2, 3])))
        crop = np.clip(crop * rng.uniform(0.9, 1.1, 3), 0, 1) ** rng.uniform(0.8, 1.25, 3)
        if rng.random() < GREY_FRACTION:
            crop = np.repeat(crop.mean(axis=2, keepdims=True), 3, axis=2)
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1), dtype=np.float32)) * 2 - 1
