"""The files of the visitors."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the web page needs the extra deqir[ui]")

from deqir.webui.sessions import Sessions


def test_a_session_takes_its_files_along(tmp_path):
    sessions = Sessions(tmp_path)
    sessions.enter("a")
    sessions.enter("b")
    first, folder = sessions.begin("../a")  # a name never leaves the root
    assert folder.is_relative_to(tmp_path / "sessions" / "a")
    stop, again = sessions.begin("a")
    assert not folder.exists() and again.exists() and stop is not first
    shown = [Path(sessions.picture("a", "preview", np.zeros((2, 2, 3), np.uint8))) for _ in range(5)]
    assert [file.exists() for file in shown] == [False, False, True, True, True]
    sessions.stop("b")
    assert not stop.is_set()
    sessions.leave("a")
    sessions.leave("../a")
    assert stop.is_set() and list(tmp_path.rglob("*.png")) == [] and not again.exists()
    assert sessions.picture("a", "preview", np.zeros((2, 2, 3), np.uint8)) is None
    assert not (tmp_path / "sessions" / "a").exists()


def test_an_upload_goes_with_the_last_visitor_who_uses_it(tmp_path):
    sessions, uploads = Sessions(tmp_path), tmp_path / "uploads"
    own, shared = (uploads / name / "photo.png" for name in ("own", "shared"))
    left, arriving = uploads / "tmpleft", uploads / "tmparriving"
    for folder in (own.parent, shared.parent):
        folder.mkdir(parents=True)
    for file in (own, shared, left, arriving, tmp_path / "bundled.png"):
        file.touch()
    os.utime(left, (0, 0))
    sessions.use("a", str(own), str(shared), None, str(tmp_path / "bundled.png"))
    assert not left.exists() and arriving.exists()
    sessions.use("b", str(shared))
    sessions.leave("a")
    assert not own.parent.exists() and shared.exists()
    sessions.leave("b")
    assert not shared.parent.exists() and (tmp_path / "bundled.png").exists()
