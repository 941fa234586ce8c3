"""Who is on the page: the stop signal and the files of each visitor, gone when the visitor leaves."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from PIL import Image

UPLOADS, RESULTS = "uploads", "sessions"
ARRIVING = 60
"""Seconds for which a file may still be on its way from a visitor."""
PICTURES_KEPT = 3


@dataclass(eq=False)
class Visit:
    """One visitor.

    ``uploads``: the folders of the files that the visitor uses. ``asked``: the photo and the settings of the
    restoration that runs, waits or is shown (``outcome``); ``latest``: those that the page holds now. ``lent``: whether
    the page has set the noise for the task.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    uploads: set[Path] = field(default_factory=set)
    pictures: int = 0
    running: bool = False
    outcome: Any = None
    asked: Any = None
    latest: Any = None
    lent: bool = False

    @property
    def is_current(self) -> bool:
        """Whether the page holds what ``asked`` does."""
        return bool(self.asked == self.latest)


class Sessions:
    """The visitors of one server, by their session's hash. ``root`` is the server's temporary folder.

    Uploads lie in ``uploads``, in folders named by their content, which visitors may share; what the page makes for a
    visitor lies in the visitor's own folder in ``sessions``.
    """

    def __init__(self, root: Path):
        self.root = root
        self.visits: dict[str, Visit] = {}
        self.lock = threading.Lock()

    def enter(self, session: str) -> Visit:
        """Someone opened the page or calls it; known visitors are found again."""
        with self.lock:
            return self.visits.setdefault(session, Visit())

    def use(self, session: str, *paths: str | None) -> Visit:
        """Someone uses uploads: they are kept until the last of their users leaves."""
        visit, uploads = self.enter(session), self.root / UPLOADS
        with self.lock:
            visit.uploads |= {Path(path).parent for path in paths if path and Path(path).parent.parent == uploads}
            self._remove_litter()
        return visit

    def begin(self, session: str) -> tuple[threading.Event, Path]:
        """A fresh stop signal and an empty folder for one restoration; the session's older ones are removed."""
        visit, folder = self.enter(session), self._folder(session)
        folder.mkdir(parents=True, exist_ok=True)
        self._remove(folder.glob("run-*"))
        with self.lock:
            stop = visit.stop = threading.Event()
            visit.outcome = None
        return stop, Path(mkdtemp(prefix="run-", dir=folder))

    def picture(self, session: str, kind: str, pixels: Any) -> str | None:
        """Write ``pixels`` (H, W, C) uint8 where the page shows them to this visitor alone; the latest are kept.

        Returns the file, or None where the visitor has gone.
        """
        with self.lock:
            visit = self.visits.get(session)
            if visit is None:
                return None
            visit.pictures += 1
            folder = self._folder(session)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{kind}-{visit.pictures:06}.png")
            self._remove(sorted(folder.glob(f"{kind}-*.png"))[:-PICTURES_KEPT])
            return str(folder / f"{kind}-{visit.pictures:06}.png")

    def other_is_running(self, session: str) -> bool:
        """Whether someone else's restoration runs or waits."""
        with self.lock:
            return any(visit.running for name, visit in self.visits.items() if name != session)

    def stop(self, session: str) -> None:
        """End the session's restoration at its next report."""
        with self.lock:
            if session in self.visits:
                self.visits[session].stop.set()
                self.visits[session].running = False

    def leave(self, session: str) -> None:
        """Someone closed the page: stop, and remove the files that nobody else uses."""
        self.stop(session)
        with self.lock:
            gone = self.visits.pop(session, Visit())
            used = {folder for visit in self.visits.values() for folder in visit.uploads}
            self._remove([self._folder(session), *(gone.uploads - used)])
            self._remove_litter()

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _remove_litter(self) -> None:
        """Gradio leaves an empty file with each look at an upload; those of uploads under way are younger."""
        files = [file for file in (self.root / UPLOADS).glob("tmp*") if file.is_file()]
        self._remove(file for file in files if not _arrives(file))

    def _folder(self, session: str) -> Path:
        return self.root / RESULTS / "".join(letter for letter in session if letter.isalnum())


def _arrives(path: Path) -> bool:
    """Whether an upload may still be under way."""
    try:
        return time.time() - path.stat().st_mtime < ARRIVING
    except FileNotFoundError:
        return False
