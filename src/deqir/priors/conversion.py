"""From another code's tensor names to ``UNet2DModel``'s: a table of modules, applied strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deqir.priors.checkpoint_file import State
from deqir.priors.networks import load_weights, refuse_misfits, resampling_kernel

if TYPE_CHECKING:
    from diffusers import UNet2DModel

ModuleTable = Mapping[str, "str | None"]
"""The source's module for every module of ``UNet2DModel`` with weights; None: resampling that has no weights there."""

Adapt = Callable[[str, Tensor], Tensor]
"""(target name, source tensor) to the target's tensor."""


def load_converted(model: UNet2DModel, state: State, table: ModuleTable, adapt: Adapt, source: str) -> None:
    """Load ``state`` into ``model``, every tensor renamed by ``table`` and changed by ``adapt``.

    Raises UnsupportedCheckpointError, naming in the source's own words what is missing, unexpected or of another
    shape.
    """
    own = {key: value.shape for key, value in model.state_dict().items()}
    names = {key: _source_name(key, table) for key in own}
    used = {name for name in names.values() if name is not None}
    refuse_misfits(used - state.keys(), state.keys() - used, (), source)
    converted: dict[str, Tensor] = {}
    reshaped: list[str] = []
    for key, name in names.items():
        tensor = resampling_kernel(own[key], key) if name is None else adapt(key, state[name])
        converted[key] = tensor
        if tensor.shape != own[key]:
            reshaped.append(name or key)
    refuse_misfits((), (), reshaped, source)
    load_weights(model, converted, source)


def _source_name(key: str, table: ModuleTable) -> str | None:
    """Where the target tensor ``key`` comes from; a module outside the table keeps its name, and counts as missing."""
    module, _, parameter = key.rpartition(".")
    source = table.get(module, module)
    return None if source is None else f"{source}.{parameter}"


def attention_part(target: str) -> int | None:
    """0, 1 or 2 where ``target`` belongs to the query, key or value projection."""
    for part, name in enumerate((".to_q.", ".to_k.", ".to_v.")):
        if name in target:
            return part
    return None


def flattened(tensor: Tensor, target: str) -> Tensor:
    """The weight of a 1x1 convolution (C', C, 1) or (C', C, 1, 1) as an attention layer's matrix (C', C)."""
    is_projection = attention_part(target) is not None or ".to_out.0." in target
    return tensor.flatten(1) if is_projection and tensor.ndim > 2 else tensor


def split_heads(qkv: Tensor, heads: int, part: int, heads_first: bool) -> Tensor:
    """Query, key or value (``part``) of one joint projection with 3C rows.

    ``heads_first``: the rows are cut into heads and each head into q, k, v (guided-diffusion's legacy order); else
    into q, k, v and each into heads.
    """
    if not heads_first:
        return torch.chunk(qkv, 3)[part]
    rest = qkv.shape[1:]
    return qkv.reshape(heads, 3, -1, *rest)[:, part].reshape(-1, *rest)
