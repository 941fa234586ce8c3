"""SIGTERM, which batch systems and containers send: the run ends as on Ctrl-C, and says so by its exit code."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a run that SIGTERM ended, 143; Ctrl-C makes it 130."""

AGAIN = 0.05
"""Seconds after which a signal that came during an import is tried again."""


class _Interrupts:
    """Raises KeyboardInterrupt on a signal, but inside an import only after it: some packages take it for their own
    failure, and say that at length.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self.outer = _imports(sys._getframe())
        self.waiting = self.ended = False
        self.sending = threading.Lock()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.ended:
            return
        self.received.append(number)
        if _imports(frame) <= self.outer:
            raise KeyboardInterrupt
        if not self.waiting:
            self.waiting = True
            _thread.start_new_thread(self._try_again, (number,))  # takes no lock, as Thread.start does

    def _try_again(self, number: int) -> None:
        time.sleep(AGAIN)
        self.waiting = False
        with self.sending:
            if not self.ended:
                _send(number)

    def end(self) -> None:
        """Ignore every signal from now on; none is sent once this returns."""
        self.ended = True
        with self.sending:
            pass

    def exit_code(self, error: BaseException) -> int | None:
        """The exit code of a run that ended with ``error``, where a signal decides it."""
        if signal.SIGTERM in self.received:
            return TERMINATED
        ended_well = isinstance(error, SystemExit) and not error.code
        return 128 + signal.SIGINT if self.received and not ended_well else None


def _send(number: int) -> None:
    """Send a signal to the main thread; where that is possible one that ends its waiting, too."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(signal.Signals(number))


def _imports(frame: FrameType | None) -> int:
    """How many imports are under way in ``frame`` and its callers."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_name == "_find_and_load" and "importlib" in frame.f_code.co_filename
        frame = frame.f_back
    return count


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt inside, so that what is finished is kept; the process then exits with 143.

    After Ctrl-C it exits with 130, whatever the interrupt has become on its way. Where SIGINT is ignored it stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread alone
        return
    interrupts = _Interrupts()
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, interrupts) for number in numbers}
    try:
        yield
    except BaseException as error:
        code = interrupts.exit_code(error)
        if code is not None:
            sys.exit(code)
        raise
    finally:
        interrupts.end()
        for number, handler in before.items():
            signal.signal(number, handler)


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
