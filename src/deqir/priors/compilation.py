"""A prior's network compiled by ``torch.compile``, with CUDA graphs where asked for, in batches of few fixed sizes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from deqir.errors import DeviceError, OptionError
from deqir.priors.denoiser import Denoiser, DiffusersDenoiser

if TYPE_CHECKING:
    from diffusers import UNet2DModel

CompileMode = Literal["default", "reduce-overhead", "max-autotune"]

SMALL_BATCHES = (1, 4, 16)
"""Batches up to the last of them are filled up to the next; larger ones to a power of two."""


class CompiledNetwork:
    """``model`` as ``network(images, conditioning, ...)``, compiled for every size of image and batch that it meets.

    A compiled graph has fixed shapes, so a batch is filled up with copies of its last image to one of few sizes, and
    the results of the copies are dropped. With CUDA graphs (``reduce-overhead``, ``max-autotune``) the next call
    overwrites the memory of a result, so results are copied.
    """

    def __init__(self, model: UNet2DModel, mode: CompileMode | None = "default", backend: str = "inductor"):
        warnings.filterwarnings("ignore", "Dynamo detected a call to", UserWarning)  # of diffusers, and harmless
        self._run = torch.compile(lambda *inputs: model(*inputs).sample, mode=mode, backend=backend, dynamic=False)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The output (N, C', H, W) for inputs of N entries. Raises DeviceError where torch cannot compile here."""
        count = len(inputs[0])
        filled = [_filled(values, static_batch(count)) for values in inputs]
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            output: Tensor = self._run(*filled)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise DeviceError(
                f"torch.compile failed on {inputs[0].device.type}: {_cause(error)}; "
                "leave compile out, or install a C++ compiler"
            ) from None
        return output[:count].clone()


def compiled(prior: Denoiser, mode: str) -> DiffusersDenoiser:
    """``prior`` with its network compiled, in ``mode`` default, reduce-overhead or max-autotune (see torch.compile).

    The first call of every size of image and batch takes up to a minute. Raises OptionError where the mode is another,
    or the prior is not one that deqir loads.
    """
    if mode not in get_args(CompileMode):
        raise OptionError(f"compile is {mode!r}; choose one of {', '.join(get_args(CompileMode))}")
    if not isinstance(prior, DiffusersDenoiser):
        raise OptionError(f"compile does not apply to the prior {prior.name}; compile its module before you give it")
    return replace(prior, network=CompiledNetwork(prior.model, mode))  # type: ignore[arg-type]


def _cause(error: Exception) -> str:
    """The first line of an error, with the next one where it only announces that."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])


def static_batch(count: int) -> int:
    """The size that a batch of ``count`` images is filled up to."""
    return next((size for size in SMALL_BATCHES if size >= count), 1 << (count - 1).bit_length())


def _filled(values: Tensor, size: int) -> Tensor:
    missing = size - len(values)
    return torch.cat([values, values[-1:].expand(missing, *values.shape[1:])]) if missing else values
