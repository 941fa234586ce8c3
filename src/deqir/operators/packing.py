"""deepinv's observations, which may be complex or lists of tensors, as one real tensor."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """How an observation becomes a real tensor (B, ...): as it is, by ``Packing.of`` an example otherwise.

    A complex tensor gets a last axis of 2 (real, imaginary); the parts of a TensorList, of the shapes ``parts``
    without the batch axis, become one row (B, M).
    """

    complex: tuple[bool, ...] = (False,)
    parts: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def of(cls, observation: Any) -> Packing:
        """The packing of observations like this one (B, ...)."""
        if isinstance(observation, Tensor):
            return cls((observation.is_complex(),))
        parts = list(observation)
        return cls(tuple(part.is_complex() for part in parts), tuple(tuple(part.shape[1:]) for part in parts))

    def pack(self, observation: Any) -> Tensor:
        """A deepinv observation as a real tensor (B, ...)."""
        if self.parts is None:
            return torch.view_as_real(observation) if self.complex[0] else observation
        return torch.cat([_real(part).flatten(1) for part in observation], dim=1)

    def unpack(self, packed: Tensor) -> Any:
        """The deepinv observation of ``pack``'s result."""
        if self.parts is None:
            return torch.view_as_complex(packed.contiguous()) if self.complex[0] else packed
        from deepinv.utils import TensorList

        sizes = [(1 + is_complex) * prod(part) for part, is_complex in zip(self.parts, self.complex, strict=True)]
        rows = torch.split(packed, sizes, dim=1)
        return TensorList(
            [
                torch.view_as_complex(row.reshape(-1, *part, 2)) if is_complex else row.reshape(-1, *part)
                for row, part, is_complex in zip(rows, self.parts, self.complex, strict=True)
            ]
        )


def _real(part: Tensor) -> Tensor:
    return torch.view_as_real(part) if part.is_complex() else part
