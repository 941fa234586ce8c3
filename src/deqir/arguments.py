"""Numbers as callers give them: NumPy's among them, what is none refused in one sentence."""

from __future__ import annotations

from operator import index

from deqir.errors import OptionError


def whole_number(name: str, value: object) -> int:
    """``value`` as an int, where it is a whole number of any kind; else OptionError, which names it."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise OptionError(f"{name} is {value!r}; give a whole number") from None


def real_number(name: str, value: object) -> None:
    """Raise OptionError, which names it, where ``value`` is no single real number."""
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise OptionError(f"{name} is {value!r:.60}; give a number") from None
