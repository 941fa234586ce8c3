"""SIGTERM, which batch systems and containers send: the run ends as on Ctrl-C, and says so by its exit code."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a run that SIGTERM ended, 143; Ctrl-C makes it 130."""


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt inside, so that what is finished is kept; the process then exits with 143."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread alone
        return
    received = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        if received:
            sys.exit(TERMINATED)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Let SIGINT and SIGTERM take effect once the body has ended: for what has to be written whole, and is short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])
