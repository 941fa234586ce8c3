"""How many images one network call gets: within a limit, and fewer once memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from deqir.errors import OptionError, ShapeError

Network = Callable[[Tensor, Tensor], Tensor]
"""``network(x, timesteps)``: one result for each of N images ``x`` (N, ...) at ``timesteps`` (N,)."""

MaxBatch = int | Literal["auto"] | None
"""A bound on the images in one network call; ``"auto"`` and None: by image size and memory."""

DEFAULT_BATCH_PIXELS = {"cpu": 2**17}
DEFAULT_BATCH_PIXELS_ELSEWHERE = 2**20

GROWN_BATCH_PIXELS = 2**22
"""Pixels in one call at most where memory is plenty; some CUDA kernels refuse tensors of 2**31 elements, which a
network of 512 channels at full resolution then reaches."""

GROWING_DEVICES = ("cuda",)
"""Device types whose free memory is known, so that the limit may grow."""

MEMORY_SHARE = 0.7
"""Share of the free memory given to one call; solvers keep their states in the rest."""

OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")


def default_max_batch(like: Tensor) -> int:
    """How many images of the size and on the device of ``like`` one network call gets where the caller sets no limit.

    About a megapixel; an eighth of that on a CPU, where larger batches only miss its caches.
    """
    pixels = DEFAULT_BATCH_PIXELS.get(like.device.type, DEFAULT_BATCH_PIXELS_ELSEWHERE)
    return max(1, pixels // (like.shape[-2] * like.shape[-1]))


def grown_limit(start: int, image_pixels: int, free: int, per_image: int) -> int:
    """The largest power of two of images that fits, but at least ``start``.

    ``free`` bytes are unused and one image of ``image_pixels`` takes ``per_image`` of them.
    """
    room = min(int(MEMORY_SHARE * free) // max(1, per_image), GROWN_BATCH_PIXELS // image_pixels)
    return max(start, 1 << (max(1, room).bit_length() - 1))


def checked_max_batch(max_batch: object) -> int | None:
    """The bound meant by ``max_batch``, None for automatic. Raises OptionError where it is neither."""
    if max_batch is None or max_batch == "auto":
        return None
    if isinstance(max_batch, bool) or not isinstance(max_batch, int) or max_batch < 1:
        raise OptionError(f"max_batch is {max_batch!r}; choose auto or a whole number of at least 1")
    return max_batch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is an allocation that failed, on whatever device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(word in str(error) for word in OUT_OF_MEMORY)


@dataclass(eq=False)
class Batcher:
    """Calls ``network`` on any number of images of one size, a limited number at a time.

    The limit is ``max_batch``, or chosen by image size (None), on CUDA raised to what memory holds. A call that runs
    out of memory is repeated with half as many images, and the limit stays there; ``halvings`` counts them. ``cost``
    says how many times the memory of a plain prediction one result needs.
    """

    network: Network
    max_batch: int | None = None
    cost: int = 1
    halvings: int = field(default=0, init=False)
    _limit: int | None = field(default=None, init=False)
    _grown: bool = field(default=False, init=False)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """The network's results for ``x`` (N, C, H, W) at ``timesteps`` (N,), in the order of ``x``.

        Raises what the network raises, its lack of memory only where one image does not fit, and ShapeError where it
        gives no tensor with as many results.
        """
        limit, done = self.limit(x, len(x)), 0
        parts: list[Tensor] = []
        while done < len(x):
            stop = min(done + limit, len(x))
            part = self._attempt(x[done:stop], timesteps[done:stop])
            if part is None:
                limit = self._halve(stop - done, x.device)
            else:
                parts.append(part)
                done = stop
        return torch.cat(parts) if parts else torch.empty_like(x)

    def limit(self, like: Tensor, wanted: int = 0) -> int:
        """The images in one call now, of the size and on the device of ``like`` (N, C, H, W).

        It may grow, once, where ``wanted`` images are more; that costs a network call and CUDA's peak statistics.
        """
        if self._limit is None:
            self._limit = self.max_batch or max(1, default_max_batch(like) // self.cost)
        if wanted > self._limit and self._may_grow(like):
            self._grown = True
            free, per_image = _cuda_memory(self.network, like[:1])
            self._limit = grown_limit(self._limit, like.shape[-2] * like.shape[-1], free, per_image)
        return self._limit

    def _may_grow(self, like: Tensor) -> bool:
        return like.device.type in GROWING_DEVICES and self.max_batch is None and not self._grown and not self.halvings

    def _attempt(self, x: Tensor, timesteps: Tensor) -> Tensor | None:
        """One network call; None where several images were too many for the memory."""
        try:
            result: object = self.network(x, timesteps)
        except (RuntimeError, MemoryError) as error:
            if len(x) == 1 or not is_out_of_memory(error):
                raise
            return None
        if not isinstance(result, Tensor) or result.ndim == 0 or len(result) != len(x):
            shown = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            raise ShapeError(f"the network gave {shown} for {len(x)} images; let it return a tensor with one of each")
        return result

    def _halve(self, failed: int, device: torch.device) -> int:
        """Half of the ``failed`` images is the limit from now on; the failed call's traceback must be gone already."""
        _empty_cache(device)
        self._limit = failed // 2
        self.halvings += 1
        return self._limit


def _cuda_memory(network: Network, image: Tensor) -> tuple[int, int]:
    """Bytes free on CUDA, the allocator's unused ones among them, and the bytes one call on ``image`` takes at most."""
    device = image.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    network(image, torch.zeros(1, dtype=torch.long, device=device))
    per_image = torch.cuda.max_memory_allocated(device) - before
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached, per_image


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
