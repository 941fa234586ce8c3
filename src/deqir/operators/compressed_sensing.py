"""Compressed sensing: the observation is a part of a block-wise Walsh-Hadamard transform of shuffled pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from deqir.errors import OptionError, ShapeError
from deqir.operators.base import DecomposableOperator, Shape, require_image, require_observation, working
from deqir.operators.checks import image_size_or_none, require_integer, require_size
from deqir.operators.hadamard import walsh_hadamard


@dataclass(frozen=True)
class CompressedSensing(DecomposableOperator):
    """Block-wise Walsh-Hadamard measurements: image (B, C, H, W) to observation (B, C, M), M about ratio * H * W.

    As in DDNM (arXiv 2212.00490, app. on compressed sensing): each channel is cut into ``block`` x ``block`` tiles,
    the pixels of a tile are shuffled by ``seed``, and the first ``round(ratio * n)`` (at least one) of its n
    orthonormal Walsh-Hadamard coefficients are kept, the mean included. A tile whose number of pixels is not a power
    of two (at the right and bottom edge) is cut, after the shuffle, into pieces that are (7 = 4 + 2 + 1). The rows of
    A are orthonormal, so the pseudo-inverse is the adjoint, at any image size.

    ``adjoint`` and ``pinv`` need the image size, from ``image_size`` (height, width) or ``at``. Raises OptionError for
    a ratio outside (0, 1] or a block below 1, and ShapeError for an image or observation of another size, or an
    unknown one.
    """

    ratio: float
    image_size: tuple[int, int] | None = None
    block: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise OptionError(f"the compressed sensing ratio is {self.ratio}; give a number above 0 and up to 1")
        require_integer("block", self.block)
        require_integer("seed", self.seed, minimum=0)
        object.__setattr__(self, "image_size", image_size_or_none(self.image_size))

    def at(self, shape: Shape) -> CompressedSensing:
        return replace(self, image_size=(shape[1], shape[2]))

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        if len(observation_shape) != 2:
            raise ShapeError(f"one observation has shape {observation_shape}; give one of (channels, measurements)")
        height, width = self._known_size()
        count = sum(piece.vectors * piece.kept for piece in self._plan(height, width).pieces)
        if observation_shape[1] != count:
            raise ShapeError(
                f"the observation has {observation_shape[1]} measurements per channel; give {count}, as an image of "
                f"{height}x{width} has at ratio {self.ratio}"
            )
        return (observation_shape[0], height, width)

    @property
    def row_gain(self) -> float:
        return 1.0

    @property
    def acts_per_channel(self) -> bool:
        return True

    def singular_values(self, like: Tensor) -> Tensor:
        return like.new_ones(())

    def V(self, coefficients: Tensor) -> Tensor:
        height, width = self._known_size()
        plan = self._plan(height, width)
        parts = torch.split(coefficients, [piece.vectors * piece.kept for piece in plan.pieces], dim=-1)
        pixels = torch.cat([_synthesise(part, piece) for part, piece in zip(parts, plan.pieces, strict=True)], dim=-1)
        _, inverse = _orders(plan.key, coefficients.device)
        return pixels[..., inverse].reshape(*pixels.shape[:-1], height, width)

    def V_adjoint(self, x: Tensor) -> Tensor:
        require_image(x)
        height, width = x.shape[-2:]
        require_size(self.image_size, height, width)
        plan = self._plan(height, width)
        order, _ = _orders(plan.key, x.device)
        pixels = working(x).flatten(2)[..., order]
        parts = torch.split(pixels, [piece.vectors * piece.length for piece in plan.pieces], dim=-1)
        return torch.cat([_analyse(part, piece) for part, piece in zip(parts, plan.pieces, strict=True)], dim=-1)

    def U(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def U_adjoint(self, y: Tensor) -> Tensor:
        require_observation(y, "(batch, channels, measurements)")
        self.image_shape(tuple(y.shape[1:]))
        return working(y)

    def _known_size(self) -> tuple[int, int]:
        if self.image_size is None:
            raise ShapeError(
                "the image size is unknown, as measurements alone do not tell it; give image_size=(height, width) or "
                "use .at((channels, height, width))"
            )
        return self.image_size

    def _plan(self, height: int, width: int) -> Plan:
        return _plan(PlanKey(height, width, self.block, self.seed), float(self.ratio))


class Piece(NamedTuple):
    """``vectors`` vectors of ``length`` pixels each (a power of two), of which ``kept`` coefficients are measured."""

    vectors: int
    length: int
    kept: int


class PlanKey(NamedTuple):
    """What decides in which order pixels are measured."""

    height: int
    width: int
    block: int
    seed: int


class Plan(NamedTuple):
    """How pixels, once reordered, split into pieces."""

    key: PlanKey
    pieces: tuple[Piece, ...]


def _analyse(pixels: Tensor, piece: Piece) -> Tensor:
    """(..., vectors * length) pixels to (..., vectors * kept) coefficients."""
    return walsh_hadamard(pixels.reshape(*pixels.shape[:-1], piece.vectors, piece.length))[..., : piece.kept].flatten(
        -2
    )


def _synthesise(coefficients: Tensor, piece: Piece) -> Tensor:
    """The transpose of ``_analyse``."""
    kept = coefficients.reshape(*coefficients.shape[:-1], piece.vectors, piece.kept)
    return walsh_hadamard(pad(kept, (0, piece.length - piece.kept))).flatten(-2)


@lru_cache(maxsize=64)
def _plan(key: PlanKey, ratio: float) -> Plan:
    """The pieces of an image of ``key``, in the order in which ``_pixel_order`` lists their pixels."""
    pieces = []
    for tiles in _tiles(key):
        count, pixels = tiles.shape
        pieces += [Piece(count, length, max(1, round(ratio * length))) for length in _powers_of_two(pixels)]
    return Plan(key, tuple(pieces))


@lru_cache(maxsize=8)
def _orders(key: PlanKey, device: torch.device) -> tuple[Tensor, Tensor]:
    """The order in which pixels are measured, and its inverse permutation."""
    listed = []
    for tiles in _tiles(key):
        # RandomState, as its stream of numbers is frozen across NumPy versions: a seed means one operator for good.
        shuffled = tiles[:, np.random.RandomState(key.seed).permutation(tiles.shape[1])]
        bounds = np.cumsum(_powers_of_two(tiles.shape[1]))[:-1]
        listed += [part.ravel() for part in np.split(shuffled, bounds, axis=1)]
    order = np.concatenate(listed)
    with torch.inference_mode(False):
        return torch.from_numpy(order).to(device), torch.from_numpy(np.argsort(order)).to(device)


def _tiles(key: PlanKey) -> list[NDArray[np.int64]]:
    """Pixel indices (count, pixels) of the tiles of each size: whole ones, right edge, bottom edge, corner."""
    index = np.arange(key.height * key.width, dtype=np.int64).reshape(key.height, key.width)
    rows, columns = key.height - key.height % key.block, key.width - key.width % key.block
    regions = (index[:rows, :columns], index[:rows, columns:], index[rows:, :columns], index[rows:, columns:])
    tiles = []
    for region in regions:
        if region.size:
            height, width = min(key.block, region.shape[0]), min(key.block, region.shape[1])
            cut = region.reshape(region.shape[0] // height, height, region.shape[1] // width, width)
            tiles.append(cut.transpose(0, 2, 1, 3).reshape(-1, height * width))
    return tiles


def _powers_of_two(number: int) -> list[int]:
    """The powers of two that sum to ``number``, largest first."""
    return [1 << bit for bit in reversed(range(number.bit_length())) if number >> bit & 1]
