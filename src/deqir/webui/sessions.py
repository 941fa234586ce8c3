"""Who is on the page: the stop signal and the folder of each visitor, gone when the visitor leaves."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from tempfile import mkdtemp

UPLOADS = "uploads"


class Sessions:
    """The visitors of one server, by their session's hash. ``root`` is the server's temporary folder."""

    def __init__(self, root: Path):
        self.root = root
        self.stops: dict[str, threading.Event] = {}
        self.lock = threading.Lock()

    def enter(self, session: str) -> None:
        """Someone opened the page or called it."""
        with self.lock:
            self.stops.setdefault(session, threading.Event())

    def begin(self, session: str) -> tuple[threading.Event, Path]:
        """A fresh stop signal and an empty folder for one restoration; the session's older ones are removed."""
        folder = self._folder(session)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with self.lock:
            stop = self.stops[session] = threading.Event()
        return stop, Path(mkdtemp(dir=folder))

    def stop(self, session: str) -> None:
        """End the session's restoration at its next report."""
        with self.lock:
            if session in self.stops:
                self.stops[session].set()

    def leave(self, session: str) -> None:
        """Someone closed the page: stop, and remove its files; the uploads go with the last visitor."""
        self.stop(session)
        shutil.rmtree(self._folder(session), ignore_errors=True)
        with self.lock:
            self.stops.pop(session, None)
            if not self.stops:
                for folder in (self.root / UPLOADS).glob("*"):
                    shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, session: str) -> Path:
        return self.root / "sessions" / "".join(letter for letter in session if letter.isalnum())
