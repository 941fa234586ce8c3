"""A stand-in for Apple's GPU, for machines without one: CPU tensors that obey the rules of the device ``mps``.

Inside ``metal()`` tensors made on "mps" or moved there are marked, and so is what is computed of them. What the real
device refuses raises here too: float64 and complex128, a partner on another device, NumPy. Parameters count as being
where they are used; tensors without axes, and indices, may come from the CPU. Kernels that Metal lacks are not noticed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

CPU, MPS = torch.device("cpu"), torch.device("mps")
MOVES = (Tensor.to, Tensor.copy_, Tensor.__setitem__)
TOO_PRECISE = (torch.float64, torch.complex128)


class Marked(Tensor):
    """A tensor that counts as being on the device ``mps``."""


class metal(TorchFunctionMode):  # noqa: N801
    """``with metal():`` the device "mps" is there."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        if function is torch.device:
            return function(*arguments, **keywords)
        leaves = tree_leaves((arguments, keywords))
        marked = any(isinstance(leaf, Marked) for leaf in leaves)
        if function == Tensor.device.__get__:
            return MPS if marked else CPU
        if marked and function in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert mps:0 device type tensor to numpy")
        if marked and function not in MOVES and any(map(_stranger, _partners(function, arguments, leaves))):
            raise RuntimeError(
                f"{function.__name__}: expected all tensors to be on the same device, but found mps and cpu"
            )
        target = _target(function, arguments, keywords) or (MPS if marked else CPU)
        arguments, keywords = tree_map(_without_mps, (arguments, keywords))
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*arguments, **keywords)
            return tree_map_only(Tensor, _marked if target == MPS else _plain, result)


def _target(function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> torch.device | None:
    """The device that the call asks for."""
    if function is Tensor.cpu:
        return CPU
    asked = keywords.get("device", arguments[1] if function is Tensor.to and len(arguments) > 1 else None)
    if isinstance(asked, Tensor):
        return MPS if isinstance(asked, Marked) else CPU
    if isinstance(asked, (str, torch.device)):
        return torch.device(asked)
    return None


def _partners(function: Any, arguments: tuple[Any, ...], leaves: list[Any]) -> list[Any]:
    return list(arguments[:1]) if function is Tensor.__getitem__ else leaves


def _stranger(leaf: Any) -> bool:
    """Whether ``leaf`` is a tensor of the CPU that a tensor of the GPU cannot be combined with."""
    return isinstance(leaf, Tensor) and not isinstance(leaf, (Marked, torch.nn.Parameter)) and leaf.ndim > 0


def _without_mps(leaf: Any) -> Any:
    return (
        CPU if (isinstance(leaf, torch.device) and leaf == MPS) or (isinstance(leaf, str) and leaf == "mps") else leaf
    )


def _marked(tensor: Tensor) -> Tensor:
    if tensor.dtype in TOO_PRECISE:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
    return tensor if isinstance(tensor, (Marked, torch.nn.Parameter)) else tensor.as_subclass(Marked)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tensor) if isinstance(tensor, Marked) else tensor
