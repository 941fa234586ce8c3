"""Checks of options that several operators share."""

from __future__ import annotations

import math

from deqir.errors import OptionError, ShapeError


def require_integer(name: str, value: int, minimum: int = 1) -> None:
    """Raise OptionError unless ``value`` is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise OptionError(f"{name} is {value!r}; give an integer of at least {minimum}")


def require_odd(name: str, value: int) -> None:
    """Raise OptionError unless ``value`` is an odd positive integer."""
    require_integer(name, value)
    if value % 2 == 0:
        raise OptionError(f"{name} is {value}; give an odd number, so that the kernel has a centre")


def require_positive(name: str, value: float) -> None:
    """Raise OptionError unless ``value`` is positive and finite."""
    if not (value > 0 and math.isfinite(value)):
        raise OptionError(f"{name} is {value}; give a positive finite number")


def image_size_or_none(image_size: tuple[int, int] | None) -> tuple[int, int] | None:
    """``image_size`` as a tuple (height, width). Raises OptionError for anything but two positive integers."""
    if image_size is None:
        return None
    if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
        raise OptionError(f"image_size is {image_size!r}; give (height, width)")
    height, width = image_size
    require_integer("the height in image_size", height)
    require_integer("the width in image_size", width)
    return (height, width)


def require_size(fixed: tuple[int, int] | None, height: int, width: int) -> None:
    """Raise ShapeError where an operator ``fixed`` to one image size meets an image of another."""
    if fixed is not None and fixed != (height, width):
        raise ShapeError(
            f"the image is {height}x{width} but the operator is fixed to {fixed[0]}x{fixed[1]}; "
            f"use .at((channels, {height}, {width}))"
        )


def image_shape_or_error(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """``shape`` as a tuple (C, H, W). Raises ShapeError for anything but three positive integers."""
    sides = tuple(shape) if isinstance(shape, (tuple, list)) else ()
    if len(sides) != 3 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ShapeError(f"the image shape is {shape!r}; give (channels, height, width) of one image")
    return (sides[0], sides[1], sides[2])
