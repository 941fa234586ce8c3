"""A fault at a chosen moment: after so many calls of deqir's own functions."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import deqir

SOURCE = str(Path(deqir.__file__).parent)
INJECTED: set[tuple[object, ...]] = set()
"""The faults that really happened, each once: its kind and what tells it from others of that kind."""


def happened(kind: str, *what: object) -> None:
    """Count a fault."""
    INJECTED.add((kind, *what))


@contextmanager
def at_call(number: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """``act`` once, when deqir's functions have been called ``number`` times; yields the calls that were counted."""
    calls: list[str] = []

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(SOURCE):
            calls.append(frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else frame.f_code.co_name)
            if len(calls) == number:
                act()

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def send(number: int) -> Callable[[], None]:
    """Send this process a signal."""
    return lambda: os.kill(os.getpid(), number)
