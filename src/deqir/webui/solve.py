"""A restoration in its own thread, watched and stopped from another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from deqir.initialization import Iteration
from deqir.results import Progress

Report = Progress | Iteration
Watch = Callable[[Report], None]


class StoppedError(Exception):
    """The visitor stopped the solve."""


class Solve:
    """Runs ``work(watch)`` in a thread; ``stop`` ends it at its next report of progress."""

    def __init__(self, work: Callable[[Watch], Any], stop: threading.Event):
        self.work, self.stop = work, stop
        self.latest: queue.Queue[Report | None] = queue.Queue()
        self.outcome: Any = None
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[Report]:
        """The latest progress, as often as there is some; raises what the work raised, or StoppedError."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            while (progress := self._newest()) is not None:
                yield progress
        finally:
            self.stop.set()  # whoever iterates may have gone
        thread.join()
        if self.error is not None:
            raise self.error

    def _newest(self) -> Report | None:
        newest = self.latest.get()
        while newest is not None and not self.latest.empty():
            newest = self.latest.get()
        return newest

    def _run(self) -> None:
        try:
            self.outcome = self.work(self._watch)
        except BaseException as error:
            self.error = error
        finally:
            self.latest.put(None)

    def _watch(self, progress: Report) -> None:
        if self.stop.is_set():
            raise StoppedError
        self.latest.put(progress)
