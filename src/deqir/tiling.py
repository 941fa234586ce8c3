"""Images of any size in bounded memory: overlapping tiles, blended inside every call of the denoiser.

The chain, the operator and the data consistency stay whole-image; only the network sees tiles (as in MultiDiffusion,
Bar-Tal et al., ICML 2023, arXiv 2302.08113, and the mask-shift trick of DDNM, arXiv 2212.00490).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise, product
from math import ceil, pi
from typing import Literal

import torch
from torch import Tensor

from deqir.batching import Batcher
from deqir.errors import OptionError
from deqir.priors import Denoiser
from deqir.schedule import NoiseSchedule

TileSize = int | Literal["auto"] | None
"""The side of a tile in pixels; ``"auto"``: the prior's where the image is large, None: no tiles."""

DEFAULT_TILE = 256
"""The side of a tile for priors that do not name one."""

LEAST_TILE = 8
"""The side of the smallest tiles that can be asked for."""

LEAST_AUTO_TILE = 64
"""``"auto"`` chooses no smaller tiles, which would mostly compute overlaps."""

AUTO_TILES = 4
"""``"auto"`` cuts images of more pixels than this many tiles."""

OVERLAP_SHARE = 8
"""Neighbouring tiles share a part of at least one in this many pixels, unless told otherwise."""


def choose_tile(denoiser: Denoiser, size: tuple[int, int], tile: TileSize) -> int | None:
    """The side of the tiles for images of ``size`` (H, W), or None where they go to the network whole.

    ``"auto"`` cuts images of more than ``AUTO_TILES`` tiles of the prior's ``tile_size``.
    """
    height, width = size
    if tile == "auto":
        tile = max(LEAST_AUTO_TILE, int(getattr(denoiser, "tile_size", DEFAULT_TILE)))
        if height * width <= AUTO_TILES * tile**2:
            return None
    return None if tile is None or max(height, width) <= tile else tile


def checked_tiling(tile: object, overlap: object) -> None:
    """Raise OptionError where ``tile`` or ``overlap`` (None: chosen) cannot be what a restoration is cut by."""
    if not (tile is None or tile == "auto" or _whole(tile, LEAST_TILE)):
        raise OptionError(f"tile is {tile!r}; choose auto, none or a whole number of at least {LEAST_TILE} pixels")
    if not (overlap is None or _whole(overlap, 0)):
        raise OptionError(f"tile_overlap is {overlap!r}; choose zero or a whole number of pixels")
    if isinstance(tile, int) and isinstance(overlap, int) and 2 * overlap > tile:
        raise OptionError(f"tile_overlap is {overlap} but the tile {tile}; choose at most half of the tile")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True, eq=False)
class TiledDenoiser:
    """A denoiser that cuts images larger than ``tile`` pixels and blends what ``denoiser`` predicts for the parts.

    Tiles are ``tile`` x ``tile`` (less where a side of the image is shorter), spread evenly, and neighbours share
    ``overlap`` pixels or more (None: an eighth of the tile). In the shared part the weights go smoothly from one to the
    other and sum to 1. The tiles of all states of a call share batches of at most ``max_batch`` (None: by size and
    memory); beside one batch and the blended prediction nothing is held, however large the image. Autograd works
    through it. An image no larger than a tile gives exactly what ``denoiser`` gives.

    Raises OptionError where the tile is smaller than 8 or the overlap larger than half of it.
    """

    denoiser: Denoiser
    tile: int
    overlap: int | None = None
    max_batch: int | None = None

    def __post_init__(self) -> None:
        checked_tiling(self.tile, self.overlap)

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule of the denoiser."""
        return self.denoiser.schedule

    @property
    def channels(self) -> int:
        """C, the image channels."""
        return self.denoiser.channels

    @property
    def name(self) -> str:
        """The denoiser's own name."""
        return self.denoiser.name

    @cached_property
    def batcher(self) -> Batcher:
        """The denoiser, called with a limited number of tiles."""
        return Batcher(self.denoiser, self.max_batch)

    def limit(self, like: Tensor, wanted: int = 0) -> int:
        """The tiles in one network call now for images like ``like`` (N, C, H, W); ``wanted`` as in ``Batcher``."""
        return self.batcher.limit(like[:1, :, : self.tile, : self.tile], wanted)

    def to(self, device: torch.device, dtype: torch.dtype) -> TiledDenoiser:
        """This denoiser on ``device``, computing in ``dtype``."""
        return replace(self, denoiser=self.denoiser.to(device, dtype))

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The predicted noise (N, C, H, W) in ``x`` of that shape at ``timesteps`` (N,)."""
        overlap = self.tile // OVERLAP_SHARE if self.overlap is None else self.overlap
        rows, columns = (tiled_axis(size, self.tile, overlap) for size in x.shape[-2:])
        if len(rows) == len(columns) == 1:
            return self.denoiser(x, timesteps)
        places = list(product(range(len(x)), range(len(rows)), range(len(columns))))
        blended = torch.zeros_like(x)
        while places:
            limit = self.limit(x, len(places))
            batch, places = places[:limit], places[limit:]
            parts = torch.stack([x[n, :, rows.pixels(i), columns.pixels(j)] for n, i, j in batch])
            predictions = self.batcher(parts, timesteps[[n for n, _, _ in batch]])
            for (n, i, j), prediction in zip(batch, predictions, strict=True):
                weights = torch.outer(rows.weights[i], columns.weights[j]).to(x)
                blended[n, :, rows.pixels(i), columns.pixels(j)] += weights * prediction
        return blended


@dataclass(frozen=True, eq=False)
class TiledAxis:
    """The tiles along one axis: where each starts, and its ``weights`` (tiles, length), float64 on the CPU.

    The weights of all tiles that hold a pixel sum to 1.
    """

    starts: tuple[int, ...]
    weights: Tensor

    def __len__(self) -> int:
        return len(self.starts)

    def pixels(self, k: int) -> slice:
        """The pixels of tile ``k``."""
        return slice(self.starts[k], self.starts[k] + self.weights.shape[1])


@lru_cache(maxsize=16)
def tiled_axis(size: int, tile: int, overlap: int) -> TiledAxis:
    """As few tiles as cover ``size`` pixels with ``overlap`` or more between neighbours, evenly spread."""
    with torch.inference_mode(False):  # a cached inference tensor could not take part in a later backward pass
        if size <= tile:
            return TiledAxis((0,), torch.ones(1, size, dtype=torch.float64))
        count = ceil((size - overlap) / (tile - overlap))
        starts = tuple(round(k * (size - tile) / (count - 1)) for k in range(count))
        shared = tile - max(after - before for before, after in pairwise(starts))
        window = _window(tile, min(shared, tile // 2))
        total = torch.zeros(size, dtype=torch.float64)
        for start in starts:
            total[start : start + tile] += window
        return TiledAxis(starts, torch.stack([window / total[start : start + tile] for start in starts]))


def _window(tile: int, ramp: int) -> Tensor:
    """1 in the middle, falling to both ends over ``ramp`` pixels as a squared sine; nowhere 0."""
    index = torch.arange(tile, dtype=torch.float64)
    from_edge = torch.minimum(index, index.flip(0)) + 0.5
    return torch.sin(pi / 2 * (from_edge / max(ramp, 1)).clamp(max=1)).square()
