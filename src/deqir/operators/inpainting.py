"""Inpainting: the observation is the image where a mask is 1, and 0 in the holes."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deqir.errors import OptionError, ShapeError
from deqir.operators.base import DecomposableOperator, Shape, require_image, working
from deqir.operators.checks import require_integer


@dataclass(frozen=True, eq=False)
class Inpainting(DecomposableOperator):
    """Masking: image and observation are both (B, C, H, W), and the adjoint and the pseudo-inverse mask again.

    ``mask`` is (H, W), (C, H, W) or (1 | B, 1 | C, H, W), bool or number, 1 where a pixel is observed and 0 where it
    is hidden; it is kept as a bool (1 | B, 1 | C, H, W). Values of the observation in the holes are ignored, even NaN.

    Raises OptionError for other mask values or where an image has no observed pixel, and ShapeError for a mask of
    another number of axes, or one that does not fit the image it meets.
    """

    mask: Tensor
    _copies: int = field(init=False, repr=False, default=1)
    _hidden: dict[torch.device, Tensor] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", _boolean_mask(self.mask))

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        if len(observation_shape) != 3:
            raise ShapeError(f"one observation has shape {observation_shape}; give one of (channels, height, width)")
        shape = (observation_shape[0], observation_shape[1], observation_shape[2])
        self._require_fit(shape)
        return shape

    def at(self, shape: Shape) -> Inpainting:
        self._require_fit(shape)
        return self

    def repeated(self, count: int) -> Inpainting:
        require_integer("count", count)
        if len(self.mask) == 1:
            return self
        repeated = copy(self)  # shares the mask: nothing is copied or checked again
        object.__setattr__(repeated, "_copies", self._copies * count)
        return repeated

    def observation_shape(self, shape: Shape) -> tuple[int, ...]:
        self._require_fit(shape)
        return shape

    @property
    def acts_per_channel(self) -> bool:
        return self.mask.shape[1] == 1

    def singular_values(self, like: Tensor) -> Tensor:
        mask = self._hidden_on(like.device).logical_not()
        return mask.repeat(self._copies, 1, 1, 1).to(like.dtype)

    def V(self, coefficients: Tensor) -> Tensor:
        return coefficients

    def V_adjoint(self, x: Tensor) -> Tensor:
        require_image(x)
        self._require_batch_fit(x)
        return working(x)

    def U(self, coefficients: Tensor) -> Tensor:
        return self.forward(coefficients)

    def U_adjoint(self, y: Tensor) -> Tensor:
        return working(self.forward(y))

    def forward(self, x: Tensor) -> Tensor:
        require_image(x)
        self._require_batch_fit(x)
        hidden = self._hidden_on(x.device)
        if self._copies == 1:
            return x.masked_fill(hidden, 0)
        return x.reshape(self._copies, -1, *x.shape[1:]).masked_fill(hidden, 0).flatten(0, 1)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.forward(y)

    def pinv(self, y: Tensor) -> Tensor:
        return self.forward(y)

    def range_projection(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def _hidden_on(self, device: torch.device) -> Tensor:
        """The complement of the mask, moved to a device once."""
        if device not in self._hidden:
            with torch.inference_mode(False):
                self._hidden[device] = self.mask.logical_not().to(device)
        return self._hidden[device]

    def _require_batch_fit(self, x: Tensor) -> None:
        self._require_fit((x.shape[1], x.shape[2], x.shape[3]))
        expected = self._copies * len(self.mask)
        if len(self.mask) != 1 and len(x) != expected:
            raise ShapeError(
                f"the mask is for a batch of {expected} but the batch has {len(x)}; give one mask per image"
            )

    def _require_fit(self, shape: Shape) -> None:
        _, channels, height, width = self.mask.shape
        if (height, width) != tuple(shape[1:]):
            raise ShapeError(
                f"the mask is {height}x{width} but the image is {shape[1]}x{shape[2]}; give a mask of the image's size"
            )
        if channels not in (1, shape[0]):
            raise ShapeError(
                f"the mask has {channels} channels but the image {shape[0]}; give a mask with 1 or as many"
            )


def _boolean_mask(mask: Tensor) -> Tensor:
    """``mask`` as a bool (batch, channels, H, W)."""
    if mask.ndim not in (2, 3, 4) or mask.numel() == 0:
        raise ShapeError(
            f"the mask has shape {tuple(mask.shape)}; give (height, width), (channels, height, width) or "
            "(batch, channels, height, width)"
        )
    observed = mask.detach().to(torch.bool)
    if not torch.equal(observed.to(mask.dtype), mask.detach()):
        raise OptionError("the mask holds values other than 0 and 1; round it, with 1 where a pixel is observed")
    observed = observed.reshape((1,) * (4 - mask.ndim) + tuple(mask.shape)).clone()
    if not observed.flatten(1).any(dim=1).all():
        raise OptionError("the mask is 0 everywhere, nothing observed; set it to 1 where a pixel is observed")
    return observed
