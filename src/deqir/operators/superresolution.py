"""Super-resolution: the observation is the image, downsampled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from deqir.errors import OptionError, ShapeError
from deqir.operators.base import Shape
from deqir.operators.checks import image_size_or_none, require_integer, require_size
from deqir.operators.downsampling import AverageAxis, BicubicAxis
from deqir.operators.separable import AxisMap, SeparableOperator

DownsamplingKernel = Literal["average", "bicubic"]


@dataclass(frozen=True)
class SuperResolution(SeparableOperator):
    """Downsampling by ``scale``: image (B, C, H, W) to observation (B, C, ceil(H / scale), ceil(W / scale)).

    ``kernel="average"`` takes the mean of each scale x scale block (DDNM, arXiv 2212.00490, sec. 3.2); where the size
    is not a multiple of ``scale`` the last block averages the pixels it has. ``kernel="bicubic"`` is the antialiased
    cubic of MATLAB's imresize (Keys 1981, a = -1/2) with symmetric boundaries.

    Without ``image_size`` (height, width) the image size is ``scale`` times the observation's, and images of any
    other size need ``at``. Raises OptionError for a scale that is not an integer >= 1 or an unknown kernel, and
    ShapeError for an image smaller than the scale, or of another size than the operator serves.
    """

    scale: int
    kernel: DownsamplingKernel = "average"
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        require_integer("scale", self.scale)
        if self.kernel not in get_args(DownsamplingKernel):
            raise OptionError(f"the downsampling kernel is {self.kernel!r}; choose 'average' or 'bicubic'")
        object.__setattr__(self, "image_size", image_size_or_none(self.image_size))
        if self.image_size is not None:
            self._require_large_enough(*self.image_size)

    def at(self, shape: Shape) -> SuperResolution:
        return replace(self, image_size=(shape[1], shape[2]))

    def image_shape(self, observation_shape: tuple[int, ...]) -> Shape:
        if len(observation_shape) != 3:
            raise ShapeError(f"one observation has shape {observation_shape}; give one of (channels, height, width)")
        channels, height, width = observation_shape
        if self.image_size is None:
            return (channels, self.scale * height, self.scale * width)
        expected = (-(-self.image_size[0] // self.scale), -(-self.image_size[1] // self.scale))
        if (height, width) != expected:
            raise ShapeError(
                f"the observation is {height}x{width}; give one of {expected[0]}x{expected[1]}, as an image of "
                f"{self.image_size[0]}x{self.image_size[1]} has at scale {self.scale}"
            )
        return (channels, *self.image_size)

    @property
    def row_gain(self) -> float | None:
        whole_blocks = self.image_size is None or not any(side % self.scale for side in self.image_size)
        return self.scale**-2 if self.kernel == "average" and whole_blocks else None

    def axes(self, height: int, width: int) -> tuple[AxisMap, AxisMap]:
        require_size(self.image_size, height, width)
        self._require_large_enough(height, width)
        if self.image_size is None and (height % self.scale or width % self.scale):
            raise ShapeError(
                f"the image is {height}x{width}, not a multiple of scale {self.scale}; crop it or fix the operator "
                f"to that size with .at((channels, {height}, {width}))"
            )
        axis = AverageAxis if self.kernel == "average" else BicubicAxis
        return axis(height, self.scale), axis(width, self.scale)

    def _require_large_enough(self, height: int, width: int) -> None:
        if self.scale > min(height, width):
            raise ShapeError(f"the image is {height}x{width}, smaller than scale {self.scale}; use a smaller scale")
