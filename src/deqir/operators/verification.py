"""Is this a linear operator with its own adjoint and pseudo-inverse? A check that answers in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deqir.errors import DeqirError
from deqir.operators.base import LinearOperator, Shape
from deqir.operators.checks import image_shape_or_error, require_integer, require_positive
from deqir.operators.conversion import as_operator


@dataclass(frozen=True)
class Finding:
    """One property: whether it holds, by how much it is missed (relative), and what that means."""

    name: str
    holds: bool
    error: float
    sentence: str


@dataclass(frozen=True)
class OperatorReport:
    """What ``check_operator`` found; print it to read it."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether every property holds."""
        return all(finding.holds for finding in self.findings)

    @property
    def broken(self) -> tuple[str, ...]:
        """The names of the properties that do not hold."""
        return tuple(finding.name for finding in self.findings if not finding.holds)

    def __str__(self) -> str:
        return "\n".join(f"{'ok   ' if found.holds else 'WRONG'}  {found.sentence}" for found in self.findings)


def check_operator(
    thing: Any,
    shape: Shape,
    *,
    tolerance: float = 1e-5,
    images: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
) -> OperatorReport:
    """Check ``thing``, anything that ``as_operator`` takes, on random images of ``shape`` (C, H, W).

    In this order: repeatable and linear; images of a batch do not influence each other; the adjoint (dot products);
    the four identities of the Moore-Penrose pseudo-inverse P, ``A P A = A``, ``P A P = P``, ``A P`` and ``P A``
    symmetric; dtype and device follow the argument. All errors are relative and hold to ``tolerance``; a
    pseudo-inverse that is solved for holds to its own tolerance times the condition number. ``images`` is the batch
    (the operator's own where it has parameters per image). What depends on a property that fails is left out.

    Raises what ``as_operator`` raises; anything that goes wrong afterwards is in the report.
    """
    require_positive("the tolerance", tolerance)
    require_integer("images", images)
    shape = image_shape_or_error(shape)
    operator = as_operator(thing, shape).at(shape)
    generator = torch.Generator().manual_seed(seed)
    probe = _Probe(operator, images, shape, tolerance, generator, dtype, torch.device(device))
    findings: list[Finding] = []
    for stage in (_linearity, _independence, _adjointness, _penrose, _following):
        findings += _guarded(stage, probe)
        if not all(finding.holds for finding in findings):
            break
    return OperatorReport(tuple(findings))


@dataclass(frozen=True, eq=False)
class _Probe:
    """The operator and where random images for it come from."""

    operator: LinearOperator
    images: int
    shape: Shape
    tolerance: float
    generator: torch.Generator
    dtype: torch.dtype
    device: torch.device

    def image(self) -> Tensor:
        """Standard Gaussian images (B, C, H, W)."""
        return self._drawn(self.shape)

    def observation(self) -> Tensor:
        """Standard Gaussian observations (B, ...)."""
        return self._drawn(tuple(self.operator.forward(self.image()).shape[1:]))

    def _drawn(self, shape: tuple[int, ...]) -> Tensor:
        drawn = torch.randn(self.images, *shape, generator=self.generator, dtype=torch.float64)
        return drawn.to(self.dtype).to(self.device)

    def finding(self, name: str, error: float, good: str, bad: str) -> Finding:
        """The sentence is ``good`` or ``bad``, with the error in it."""
        holds = error <= self.tolerance
        return Finding(name, holds, error, f"{good if holds else bad} (relative error {error:.1e})")


Stage = Callable[[_Probe], Iterator[Finding]]


def _guarded(stage: Stage, probe: _Probe) -> list[Finding]:
    """The findings of one stage; an exception ends it and is one."""
    findings = []
    try:
        with torch.no_grad():
            for finding in stage(probe):
                findings.append(finding)
    except (DeqirError, RuntimeError, ValueError, TypeError, IndexError) as error:
        name = stage.__name__.strip("_")
        dtype = str(probe.dtype).removeprefix("torch.")
        sentence = f"the check of {name} ended as the operator failed on {dtype} images: {error}"
        findings.append(Finding(name, False, float("inf"), sentence))
    return findings


def _linearity(probe: _Probe) -> Iterator[Finding]:
    forward, x, other = probe.operator.forward, probe.image(), probe.image()
    y = forward(x)
    yield probe.finding(
        "repeatable",
        _difference(forward(x), y),
        "forward gives the same observation twice",
        "forward gives another observation each time; leave noise out of it, and dropout",
    )
    constant = forward(torch.zeros_like(x))
    mixed, others = forward(-0.7 * x + other), forward(other)
    yield probe.finding(
        "constant",
        _ratio(constant, y),
        "forward maps zero to zero",
        "forward adds a constant: A(0) is not 0; subtract it from the function and from the observation",
    )
    yield probe.finding(
        "linear",
        _difference(mixed, -0.7 * y + others + 0.7 * constant),
        "forward is linear",
        "forward is not linear: A(a x + z) is not a A x + A z; take out clipping, rounding, normalisation by the "
        "image's own values, and other nonlinear steps",
    )


def _adjointness(probe: _Probe) -> Iterator[Finding]:
    operator, x, y = probe.operator, probe.image(), probe.observation()
    seen, back = operator.forward(x), operator.adjoint(y)
    left, right = _dot(seen, y), _dot(x, back)
    scale = _norm(seen) * _norm(y) + _norm(x) * _norm(back)
    factor = float((left * right).sum() / (left * left).sum().clamp(min=1e-300))
    constant = _difference(right, factor * left) <= probe.tolerance and factor != 0
    why = (
        f"it is {factor:.6g} times too large; divide it by that"
        if constant
        else "it may be the inverse, or handle borders or the order of channels in another way; leave it out to have "
        "autograd make it"
    )
    yield probe.finding(
        "adjoint",
        float(((left - right).abs() / scale.clamp(min=1e-300)).max()),
        "the adjoint is the transpose of forward",
        f"the adjoint is not the transpose of forward, as <A x, y> is not <x, A^T y>: {why}",
    )


def _penrose(probe: _Probe) -> Iterator[Finding]:
    A, P = probe.operator.forward, probe.operator.pinv
    x, other, y, others = probe.image(), probe.image(), probe.observation(), probe.observation()
    how = "pinv is another reconstruction than the pseudo-inverse, or ends too early: lower its tolerance"
    seen, guess = A(x), P(y)
    back, again = P(seen), A(guess)
    yield probe.finding(
        "A P A = A",
        _difference(A(back), seen),
        "A P A = A: the pseudo-inverse reproduces the observation",
        f"A P A is not A: pinv of an observation, observed again, is another observation; {how}",
    )
    yield probe.finding(
        "P A P = P",
        _difference(P(again), guess),
        "P A P = P: the pseudo-inverse adds nothing that A does not see",
        f"P A P is not P: pinv adds something that forward does not see, or drops what it sees; {how}",
    )
    yield probe.finding(
        "A P symmetric",
        _asymmetry(again, y, A(P(others)), others),
        "A P is symmetric: the fit to an observation is the closest one",
        f"A P is not symmetric: pinv does not fit an inconsistent observation in least squares; {how}",
    )
    yield probe.finding(
        "P A symmetric",
        _asymmetry(back, x, P(A(other)), other),
        "P A is symmetric: the solution is the one of least norm",
        f"P A is not symmetric: pinv does not give the solution of least norm; {how}",
    )


def _independence(probe: _Probe) -> Iterator[Finding]:
    for name, drawn in (("forward", probe.image), ("adjoint", probe.observation), ("pinv", probe.observation)):
        function, x = getattr(probe.operator, name), drawn()
        others = torch.cat([3 * x[:1] - 1, x[1:]])
        yield probe.finding(
            f"independent {name}",
            _difference(function(others)[1:], function(x)[1:]) if len(x) > 1 else 0.0,
            f"the images of a batch do not influence each other in {name}",
            f"in {name} one image of a batch changes what comes out for another; work along all axes but the first",
        )


def _following(probe: _Probe) -> Iterator[Finding]:
    operator, x = probe.operator, probe.image()
    exact = operator.forward(x)
    for dtype in (torch.float32, torch.float64):
        seen = operator.forward(x.to(dtype))
        results = (seen, operator.adjoint(seen), operator.pinv(seen))
        wrong = [part for part in results if part.dtype != dtype or part.device != x.device]
        error = float("inf") if wrong else max(0.0, _difference(seen.to(exact), exact) - 1e-5)
        name = str(dtype).removeprefix("torch.")
        yield probe.finding(
            name,
            error,
            f"{name} images give {name} results on their own device",
            f"{name} images give another dtype, device or value; take both from the argument",
        )


def _norm(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _ratio(part: Tensor, whole: Tensor) -> float:
    """The norm of ``part`` relative to that of ``whole``, at worst over the batch; infinite where it is not finite."""
    part, whole = (x.reshape(len(x), -1) for x in (part, whole))
    error = float((_norm(part) / _norm(whole).clamp(min=1e-30)).max())
    return error if error < float("inf") else float("inf")


def _difference(a: Tensor, b: Tensor) -> float:
    return _ratio(a - b, b)


def _asymmetry(Mx: Tensor, x: Tensor, Mz: Tensor, z: Tensor) -> float:
    """How far <M x, z> is from <x, M z>, relative to the norms."""
    scale = _norm(x) * _norm(z)
    return float(((_dot(Mx, z) - _dot(x, Mz)).abs() / scale).max())
