"""Runs over a folder: a manifest that cannot be written, and inputs that go; then the same command completes them."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from moments import happened

from deqir.images import write_image
from deqir.manifest import Manifest, read_records

PHOTOS = 6
LINES = (1, 2, PHOTOS)


@pytest.fixture
def command(tmp_path, prior_folder):
    """A run over a folder of a few photos, as arguments; the results go to the folder ``out``."""
    photos = tmp_path / "in"
    photos.mkdir()
    for number in range(PHOTOS):
        image = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(number))
        write_image(photos / f"{number}.png", image)
    given = ("--task", "sr", "--scale", "2", "--prior", prior_folder, "--steps", "3", "--together", "1")
    return lambda out: ("restore", photos, *given, "--out", tmp_path / out)


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def completed(deqir, command, folder):
    """The results once the same command has run again, and those of a run that nothing disturbed."""
    assert deqir(*command("out"))[0] == 0
    assert deqir(*command("whole"))[0] == 0
    assert len(read_records(folder / "out")) == PHOTOS
    return pictures(folder / "out"), pictures(folder / "whole")


class FullDisk:
    """An open file that takes half of what it is given."""

    def __init__(self, file, code):
        self.file, self.code = file, code

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("line", LINES)
def test_a_manifest_that_gets_half_a_line(deqir, command, tmp_path, monkeypatch, line, code):
    opened, appends = Path.open, []

    def open_full(path, mode="r", *arguments, **named):
        file = opened(path, mode, *arguments, **named)
        if "a" in mode and path.name == "manifest.jsonl":
            appends.append(path)
            return FullDisk(file, code) if len(appends) == line else file
        return file

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", open_full)
        ended, _, err = deqir(*command("out"))
    assert ended == 1
    assert os.strerror(code) in err
    assert "Traceback" not in err
    happened("manifest", line, code)
    before = pictures(tmp_path / "out")
    assert before.keys() <= read_records(tmp_path / "out").keys()
    ours, undisturbed = completed(deqir, command, tmp_path)
    assert ours == undisturbed
    assert before.items() <= ours.items()


def test_an_input_folder_that_is_deleted_during_the_run(deqir, command, tmp_path, monkeypatch):
    kept, published = shutil.copytree(tmp_path / "in", tmp_path / "kept"), Manifest.publish

    def delete(*arguments, **named):
        line = published(*arguments, **named)
        shutil.rmtree(tmp_path / "in", ignore_errors=True)
        return line

    with monkeypatch.context() as patched:
        patched.setattr(Manifest, "publish", delete)
        ended, _, err = deqir(*command("out"))
    assert ended == 1
    assert "Traceback" not in err
    before = pictures(tmp_path / "out")
    assert 0 < len(before) < PHOTOS
    failed = {name for name, record in read_records(tmp_path / "out").items() if "error" in record}
    assert failed == {f"{number}.png" for number in range(PHOTOS)} - before.keys()
    kept.rename(tmp_path / "in")
    ours, undisturbed = completed(deqir, command, tmp_path)
    assert ours == undisturbed
    assert before.items() <= ours.items()
