"""Random restoration problems: an operator that fits an image size, an observation, and the options of a restorer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from conftest import SmoothDenoiser
from deqir import operators
from deqir.operators import LinearOperator
from deqir.restoration import Restorer
from deqir.results import Restoration
from deqir.solvers import Anderson, FixedPointSolver, Picard, TriangularAnderson

Shape = tuple[int, int, int]
SOLVERS = ("picard", "anderson", "triangular", "preconditioned")
SPACINGS = ("cubic", "quadratic", "leading", "trailing", "linspace")
ROUNDING = {"float32": 2e-4, "float64": 1e-8}
"""The difference that rounding may make to an image in [0, 1] whose chain passes through noise of 100 times that."""


@dataclass(frozen=True)
class Case:
    """A problem with its truth (B, C, H, W) in [0, 1], and the options that restore it."""

    operator: LinearOperator
    truth: Tensor
    options: dict[str, Any]
    bend: float
    seeds: tuple[int, ...]

    @property
    def y(self) -> Tensor:
        return self.operator.forward(self.truth)

    @property
    def rounding(self) -> float:
        return ROUNDING[self.options["dtype"]]

    def restore(self, y: Tensor | None = None, seeds: tuple[int, ...] | None = None, **changed: Any) -> Restoration:
        """The restored batch; ``changed`` options replace those drawn."""
        start = changed.pop("start", None)
        denoiser = SmoothDenoiser(self.truth.shape[1], bend=self.bend)
        restorer = Restorer(denoiser, self.operator, **{**self.options, **changed})
        return restorer.restore(self.y if y is None else y, self.seeds if seeds is None else seeds, start=start)

    def alone(self, image: int) -> Case:
        """The same problem with one image of the batch."""
        return replace(self, truth=self.truth[image : image + 1], seeds=self.seeds[image : image + 1])


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Grey or colour images of 1 x 1 to 9 x 9 pixels, lines and odd sizes among them."""
    return draw(st.sampled_from((1, 3))), draw(st.integers(1, 9)), draw(st.integers(1, 9))


@st.composite
def linear_operators(draw: st.DrawFn, shape: Shape) -> LinearOperator:
    """An operator for images of ``shape``; one in five is a composition."""
    channels, height, width = shape
    kinds = ["sr", "inpaint", "box", "deblur", "cs", "denoise"] + ["colorize", "grey inpaint"] * (channels == 3)
    kind = draw(st.sampled_from(kinds))
    if kind == "sr":
        return operators.SuperResolution(draw(st.integers(1, min(4, height, width)))).at(shape)
    if kind == "inpaint":
        return operators.Inpainting(draw(masks(height, width)))
    if kind == "box" and height * width > 1:
        box = (0, 0, height, width - 1) if width > 1 else (0, 0, height - 1, 1)
        return operators.Inpainting(operators.box_mask(height, width, box))
    if kind == "deblur":
        taps = draw(st.sampled_from((1, 3, 5)))
        boundary = draw(st.sampled_from(("circular", "reflect")))
        return operators.Deblurring(operators.gaussian_kernel(taps, 1.5), boundary).at(shape)
    if kind == "cs":
        return operators.CompressedSensing(draw(st.sampled_from((0.25, 0.5, 1.0))), seed=draw(st.integers(0, 9))).at(
            shape
        )
    if kind == "colorize":
        return operators.Colorization(draw(st.sampled_from(("mean", "luma"))))
    if kind == "grey inpaint":
        return operators.Colorization() @ operators.Inpainting(draw(masks(height, width)))
    return operators.Denoising()


@st.composite
def masks(draw: st.DrawFn, height: int, width: int) -> Tensor:
    """A mask (1, 1, H, W) that keeps at least one pixel."""
    count = height * width
    kept = draw(st.lists(st.booleans(), min_size=count, max_size=count).filter(any))
    return torch.tensor(kept, dtype=torch.float32).view(1, 1, height, width)


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[str, ...] = ("float64", "float32")) -> Case:
    """Problems of one to three images, with every option that must not change the answer, or may."""
    shape = draw(shapes())
    operator = draw(linear_operators(shape))
    images = draw(st.integers(1, 3))
    options = {
        "steps": draw(st.integers(1, 14)),
        "eta": draw(st.sampled_from((0.0, 0.5, 0.85, 1.0))),
        "spacing": draw(st.sampled_from(SPACINGS)),
        "solver": draw(st.one_of(st.sampled_from(SOLVERS), fixed_point_solvers())),
        "tolerance": 0.0,
        "window": draw(st.one_of(st.none(), st.integers(1, 15))),
        "max_batch": draw(st.one_of(st.none(), st.integers(1, 9))),
        "dtype": draw(st.sampled_from(dtypes)),
        "device": "cpu",
    }
    truth = torch.rand((images, *shape), generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    truth = draw(st.sampled_from((truth, torch.zeros_like(truth), torch.ones_like(truth), torch.full_like(truth, 0.5))))
    seeds = tuple(draw(st.lists(st.integers(0, 1000), min_size=images, max_size=images)))
    return Case(operator, truth.double(), options, draw(st.sampled_from((0.0, 0.2, 0.5))), seeds)


@st.composite
def fixed_point_solvers(draw: st.DrawFn) -> FixedPointSolver:
    """A solver with settings of its own."""
    kind = draw(st.sampled_from((Picard, Anderson, TriangularAnderson)))
    carry = draw(st.booleans())
    if kind is Picard:
        return Picard(carry=carry)
    size, damping = draw(st.integers(1, 5)), draw(st.sampled_from((0.5, 1.0)))
    return kind(history_size=size, damping=damping, ridge=draw(st.sampled_from((0.0, 1e-4))), carry=carry)
