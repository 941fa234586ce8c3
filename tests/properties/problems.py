"""Random restoration problems: an operator that fits an image size, an observation, and the options of a restorer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from conftest import SmoothDenoiser
from deqir import operators
from deqir.operators import DecomposableOperator, LinearOperator
from deqir.restoration import Restorer
from deqir.results import Restoration
from deqir.schedule import NoiseSchedule
from deqir.solvers import Anderson, FixedPointSolver, Picard, TriangularAnderson

Shape = tuple[int, int, int]
SOLVERS = ("picard", "anderson", "triangular", "preconditioned")
SPACINGS = ("cubic", "quadratic", "leading", "trailing", "linspace")
SCHEDULES = ("linear", "cosine", "scaled_linear", "sigmoid")
RULES = ("auto", "ddnm", "ddnm+", "ddrm", "diffpir")
DECOMPOSED = ("ddnm+", "ddrm")
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
ROUNDING = {"float64": 1e-8, "float32": 2e-4, "float16": 0.02, "bfloat16": 0.1}
"""The difference that rounding may make to an image in [0, 1] whose chain passes through noise of 100 times that."""
COSINE = 4 * torch.finfo(torch.float32).eps
"""What it may make more in single precision for every unit of noise to signal; a cosine schedule begins at 20,000."""


@dataclass
class RoundingDenoiser(SmoothDenoiser):
    """The stand-in network as one of half precision: its input and its output are rounded."""

    half: torch.dtype | None = None

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        if self.half is None:
            return super().__call__(x, timesteps)
        return super().__call__(x.to(self.half).to(x.dtype), timesteps).to(self.half).to(x.dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> SmoothDenoiser:
        return replace(self, half=dtype if dtype in HALVES.values() else None)


@dataclass(frozen=True)
class Case:
    """A problem with its truth (B, C, H, W) in [0, 1], and the options that restore it."""

    operator: LinearOperator
    truth: Tensor
    options: dict[str, Any]
    bend: float
    seeds: tuple[int, ...]
    schedule: str = "linear"

    @property
    def y(self) -> Tensor:
        """The observation; the noise of an image is that of its own seed."""
        clean = self.operator.forward(self.truth)
        draws = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        noise = [torch.randn(clean.shape[1:], generator=draw, dtype=clean.dtype) for draw in draws]
        return clean + self.options.get("noise", 0.0) * torch.stack(noise)

    def rounding(self, image: Tensor) -> float:
        """The difference that rounding may make to ``image``, which a strange network takes far beyond [0, 1]."""
        ratio = float(NoiseSchedule.named(self.schedule).levels(self.options["steps"]).noise_to_signal.max())
        start = 0.0 if self.options["dtype"] == "float64" else COSINE * ratio
        return (ROUNDING[self.options["dtype"]] + start) * max(1.0, float(image.abs().max()))

    def restore(self, y: Tensor | None = None, seeds: tuple[int, ...] | None = None, **changed: Any) -> Restoration:
        """The restored batch; ``changed`` options replace those drawn."""
        start = changed.pop("start", None)
        schedule = NoiseSchedule.named(self.schedule)
        denoiser = RoundingDenoiser(self.truth.shape[1], schedule=schedule, bend=self.bend)
        restorer = Restorer(denoiser, self.operator, **{**self.options, **changed})
        return restorer.restore(self.y if y is None else y, self.seeds if seeds is None else seeds, start=start)

    def alone(self, image: int) -> Case:
        """The same problem with one image of the batch."""
        return replace(self, truth=self.truth[image : image + 1], seeds=self.seeds[image : image + 1])


@st.composite
def shapes(draw: st.DrawFn, largest: int = 9) -> Shape:
    """Grey or colour images of 1 x 1 to 9 x 9 pixels, or to ``largest``, lines and odd sizes among them."""
    return draw(st.sampled_from((1, 3))), draw(st.integers(1, largest)), draw(st.integers(1, largest))


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
def rules(draw: st.DrawFn, operator: LinearOperator, steps: int) -> dict[str, Any]:
    """A rule that takes ``operator``, the noise of the observation, time travel and averaging."""
    names = [name for name in RULES if name not in DECOMPOSED or isinstance(operator, DecomposableOperator)]
    return {
        "rule": draw(st.sampled_from(names)),
        "noise": draw(st.sampled_from((0.0, 0.02, 0.1))),
        "travel_length": draw(st.integers(1, max(1, min(3, steps - 1)))),
        "travel_repeat": draw(st.sampled_from((1, 1, 2))) if steps > 1 else 1,
        "average": draw(st.sampled_from((0.0, 0.0, 0.1))),
    }


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[str, ...] = ("float64", "float32"), noisy: bool = True) -> Case:
    """Problems of one to three images, with every option that must not change the answer, or may.

    Without ``noisy`` the rule is left to the caller and the observation has no noise.
    """
    shape = draw(shapes(12))
    operator = draw(linear_operators(shape))
    images = draw(st.integers(1, 3))
    steps = draw(st.integers(1, 14))
    options = {
        "steps": steps,
        "eta": draw(st.sampled_from((0.0, 0.5, 0.85, 1.0))),
        "spacing": draw(st.sampled_from(SPACINGS)),
        "solver": draw(st.one_of(st.sampled_from(SOLVERS), fixed_point_solvers())),
        "tolerance": 0.0,
        "window": draw(st.one_of(st.none(), st.integers(1, 15))),
        "max_batch": draw(st.one_of(st.none(), st.integers(1, 9))),
        "tile": draw(st.sampled_from((None, 8))),
        "dtype": draw(st.sampled_from(dtypes)),
        "device": "cpu",
    }
    options |= draw(rules(operator, steps)) if noisy else {}
    truth = torch.rand((images, *shape), generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    truth = draw(st.sampled_from((truth, torch.zeros_like(truth), torch.ones_like(truth), torch.full_like(truth, 0.5))))
    seeds = tuple(draw(st.lists(st.integers(0, 1000), min_size=images, max_size=images)))
    bend, schedule = draw(st.sampled_from((0.0, 0.2, 0.5))), draw(st.sampled_from(SCHEDULES))
    return Case(operator, truth.double(), options, bend, seeds, schedule)


@st.composite
def fixed_point_solvers(draw: st.DrawFn) -> FixedPointSolver:
    """A solver with settings of its own."""
    kind = draw(st.sampled_from((Picard, Anderson, TriangularAnderson)))
    carry = draw(st.booleans())
    if kind is Picard:
        return Picard(carry=carry)
    size, damping = draw(st.integers(1, 5)), draw(st.sampled_from((0.5, 1.0)))
    return kind(history_size=size, damping=damping, ridge=draw(st.sampled_from((0.0, 1e-4))), carry=carry)
