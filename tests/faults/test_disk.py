"""Disks that are full, read-only or break: a sentence, no half file, what was there before is there still."""

import errno
import json
import os
import resource
import subprocess
from pathlib import Path

import pytest
import torch
from moments import happened

from conftest import sentence, tiny_unet
from deqir.errors import DeqirError, OutputError
from deqir.images import read_image, write_image
from deqir.observations import Observation, write_observation
from deqir.outputs import write_records
from deqir.priors import DiffusersDenoiser, load_prior, save_prior
from deqir.schedule import NoiseSchedule

IMAGE = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))
WRITERS = {
    "image.png": lambda path: write_image(path, IMAGE),
    "deep.tif": lambda path: write_image(path, IMAGE, 16),
    "image.webp": lambda path: write_image(path, IMAGE),
    "y.safetensors": lambda path: write_observation(path, Observation(IMAGE, {})),
    "y.png": lambda path: write_observation(path, Observation(IMAGE, {})),
    "run.json": lambda path: write_records(path, [{"file": "a" * 9000}]),
}
ERRORS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT)
OPERATIONS = ("open", "write", "rename")
BROKEN_DISKS = [(name, operation, code) for name in WRITERS for operation in OPERATIONS for code in ERRORS]


def break_disk(monkeypatch, operation, code):
    """Let ``operation`` fail with ``code`` for every file; a write leaves some of its bytes first."""

    def fail(*arguments, **keywords):
        raise OSError(code, os.strerror(code))

    def write_some(path, data):
        with open(path, "wb") as file:
            file.write(data[: len(data) // 2])
        fail()

    if operation == "rename":
        monkeypatch.setattr(os, "replace", fail)
    else:
        monkeypatch.setattr(Path, "write_bytes", fail if operation == "open" else write_some)


@pytest.mark.parametrize(("name", "operation", "code"), BROKEN_DISKS)
def test_a_disk_that_breaks_leaves_what_was_there(tmp_path, monkeypatch, name, operation, code):
    path = tmp_path / name
    WRITERS[name](path)
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        break_disk(patched, operation, code)
        with pytest.raises(OutputError, match="could not be written"):
            WRITERS[name](path)
    happened("disk", name, operation, code)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]
    WRITERS[name](path)


@pytest.fixture
def file_size_limit():
    """A limit on the size of files that really makes writes fail (EFBIG), as a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_the_kernel_cuts_off(tmp_path, file_size_limit, name):
    with pytest.raises(OutputError, match="File too large"):
        WRITERS[name](tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_prior_that_the_kernel_cuts_off(tmp_path, file_size_limit):
    with pytest.raises(DeqirError, match="cannot be written"):
        save_prior(DiffusersDenoiser(tiny_unet(), NoiseSchedule.linear()), tmp_path / "prior")
    assert os.listdir(tmp_path) == []


@pytest.fixture(params=["size=64k", "size=256k,ro"])
def small_disk(request, tmp_path):
    """A real file system of 64 KiB, or one that is read-only; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", request.param, "none", folder], capture_output=True).returncode
    ):
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_small_or_read_only_file_system(small_disk):
    large = torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(0))
    with pytest.raises(OutputError, match=r"No space left|Read-only"):
        write_image(small_disk / "image.png", large)
    assert os.listdir(small_disk) == []


def test_a_run_onto_a_full_disk_says_so_for_every_file(deqir, photo, tmp_path, monkeypatch):
    break_disk(monkeypatch, "write", errno.ENOSPC)
    code, _, err = deqir("restore", photo, photo, "--task", "sr", "--scale", "1", "--out", tmp_path / "o")
    assert code == 1
    assert err.count("No space left on device") == 2
    assert "Traceback" not in err
    assert os.listdir(tmp_path / "o") == []


@pytest.mark.parametrize("how", ["removed", "truncated", "replaced by a folder"])
def test_an_input_that_goes_bad_during_the_run(deqir, photo, tmp_path, monkeypatch, how):
    import deqir.jobs as jobs

    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file in files:
        file.write_bytes(photo.read_bytes())
    restored = jobs.write_image

    def spoil(*arguments, **keywords):
        restored(*arguments, **keywords)
        if how == "truncated":
            files[1].write_bytes(photo.read_bytes()[:80])
        elif files[1].is_file():
            files[1].unlink()
            if how != "removed":
                files[1].mkdir()

    monkeypatch.setattr(jobs, "write_image", spoil)
    stats = tmp_path / "s.json"
    code, _, err = deqir("restore", *files, "--task", "sr", "--scale", "1", "--out", tmp_path / "o", "--stats", stats)
    assert code == 1
    assert "1.png" in sentence(err)
    assert [record["status"] for record in json.loads(stats.read_text())] == ["converged", "failed", "converged"]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["0.png", "2.png"]
    assert read_image(tmp_path / "o" / "2.png").shape == (3, 19, 21)


def test_a_failed_conversion_keeps_the_prior_before_it(prior_folder, tmp_path, monkeypatch):
    prior, target = load_prior(prior_folder), tmp_path / "saved"
    save_prior(prior, target)
    before = sorted(path.name for path in target.rglob("*"))
    with monkeypatch.context() as patched:
        break_disk(patched, "rename", errno.ENOSPC)
        with pytest.raises(OutputError, match="cannot be written"):
            save_prior(prior, target, overwrite=True)
    assert sorted(path.name for path in target.rglob("*")) == before
    assert os.listdir(tmp_path) == ["saved"]
