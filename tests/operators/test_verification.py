"""The check of an operator tells in words what is wrong, and stays silent where nothing is."""

import re

import pytest
import torch

from conftest import SHAPE, all_operators
from deqir.errors import OptionError
from deqir.operators import LinearOperator, check_operator, from_function


@pytest.mark.parametrize("name", all_operators())
def test_every_operator_passes(name):
    report = check_operator(all_operators()[name], SHAPE)
    assert report.ok and report.broken == () and len(report.findings) == 13
    assert str(report).count("ok ") == 13


def test_one_image_is_enough_and_the_same_seed_gives_the_same_words():
    operator = all_operators()["deblur"]
    assert check_operator(operator, SHAPE, images=1).ok
    first, again, other = (str(check_operator(operator, SHAPE, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other


def even(x):
    return x[..., ::2]


def spread(y):
    """The transpose of ``even``."""
    return torch.stack([y, torch.zeros_like(y)], -1).flatten(-2)


def halves(y):
    return y[..., :4], y[..., 4:]


class Made(LinearOperator):
    """An operator of the maps it is given; every other pixel of a row, unless told otherwise."""

    def __init__(self, forward=even, adjoint=spread, pinv=spread):
        self.maps = forward, adjoint, pinv

    def forward(self, x):
        return self.maps[0](x)

    def adjoint(self, y):
        return self.maps[1](y)

    def pinv(self, y):
        return self.maps[2](y)

    def image_shape(self, observation_shape):
        return SHAPE


def with_noise(x):
    return even(x) + 0.1 * torch.randn(even(x).shape)


def twice(x):
    return torch.cat([even(x), even(x)], -1)


def twice_adjoint(y):
    return spread(sum(halves(y)))


BROKEN = {
    "repeatable": (Made(with_noise), "all", "leave noise out of it"),
    "constant": (Made(lambda x: even(x) + 1), ("constant",), r"A\(0\) is not 0; subtract it"),
    "clipped": (Made(lambda x: even(x).clamp(0, 1)), ("linear",), "take out clipping"),
    "normalised": (Made(lambda x: even(x) / (1 + x.abs().amax((1, 2, 3), True))), ("linear",), "normalisation"),
    "shifted": (Made(adjoint=lambda y: spread(y).roll(1, -1)), ("adjoint",), "may be the inverse"),
    "scaled": (Made(adjoint=lambda y: 2.5 * spread(y)), ("adjoint",), r"2\.5 times too large; divide it by that"),
    "zero": (Made(adjoint=lambda y: 0 * spread(y)), ("adjoint",), "may be the inverse"),
    "not-a-number": (Made(pinv=lambda y: spread(y) / 0), ("independent pinv",), r"relative error inf"),
    "another-inverse": (
        Made(pinv=lambda y: 2 * spread(y)),
        ("A P A = A", "P A P = P"),
        "observed again, is another observation; pinv is another reconstruction",
    ),
    "adds": (
        Made(lambda x: torch.cat([even(x), 0 * even(x)], -1), lambda y: spread(halves(y)[0]), lambda y: y.clone()),
        "all",
        "P A P is not P",
    ),
    "unfit": (
        Made(twice, twice_adjoint, lambda y: spread(halves(y)[0])),
        ("A P symmetric",),
        "does not fit an inconsistent observation",
    ),
    "not-least": (Made(pinv=lambda y: y.repeat_interleave(2, -1)), ("P A symmetric",), "least norm"),
    "coupled": (Made(lambda x: even(x - x.mean(0))), ("independent forward",), "work along all axes but the first"),
    "coupled-pinv": (Made(pinv=lambda y: spread(y - y.mean(0))), ("independent pinv",), "in pinv one image"),
    "double": (Made(lambda x: even(x).double()), "all", "take both from the argument"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said(name):
    operator, broken, words = BROKEN[name]
    report = check_operator(operator, SHAPE)
    assert not report.ok
    assert broken in ("all", report.broken)
    assert re.search(words, str(report))
    assert str(report).count("WRONG") == len(report.broken)


def test_one_penrose_identity_can_fail_alone():
    operator = Made(
        lambda x: torch.cat([even(x), 0 * even(x)], -1),
        lambda y: spread(halves(y)[0]),
        lambda y: spread(halves(y)[0]) + spread(halves(y)[1]).roll(1, -1),
    )
    report = check_operator(operator, SHAPE)
    assert report.broken == ("P A P = P",)


def test_a_function_fixed_to_one_dtype_is_found():
    report = check_operator(lambda x: x.flatten(1) @ torch.ones(192, 2), SHAPE)
    assert report.broken == ("linearity",)
    assert "ended as the operator failed on float64 images: expected" in str(report)
    report = check_operator(lambda x: x.flatten(1) @ torch.ones(192, 2), SHAPE, dtype=torch.float32)
    assert report.broken == ("following",)


def test_an_adjoint_of_the_wrong_shape_is_found():
    report = check_operator(from_function(even, SHAPE, adjoint=lambda y: y), SHAPE)
    assert report.broken == ("independence",)
    assert "return (batch, *(3, 8, 8))" in str(report)


@pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"images": 0}])
def test_settings_that_cannot_work_are_refused(options):
    with pytest.raises(OptionError, match="give"):
        check_operator(Made(), SHAPE, **options)
