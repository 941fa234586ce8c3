"""SIGINT and SIGTERM at random moments of a run: exit code, no traceback, no half file, finished records kept."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from moments import at_call, happened, send

from deqir.images import read_image
from deqir.manifest import read_records

SIGNALS = [(number, seed) for number in (signal.SIGINT, signal.SIGTERM) for seed in range(20)]
WHILE_WRITING = [(number, operation) for number in (signal.SIGINT, signal.SIGTERM) for operation in ("write", "rename")]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture(scope="module")
def moments(prior_folder, tmp_path_factory):
    """How many calls of deqir's functions a whole run makes from the call of main on, and its results."""
    return {}


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.fixture
def run(deqir, photo, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(photo.read_bytes())

    # A background job ignores SIGINT, and so would everything it starts.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)

    def once(number, act):
        with at_call(number, act) as calls:
            code, _out, err = deqir(
                "restore",
                folder,
                "--task",
                "sr",
                "--scale",
                "1",
                "--out",
                tmp_path / "o",
                "--stats",
                tmp_path / "s.json",
            )
        return code, err, calls

    yield once
    signal.signal(signal.SIGINT, ignored)


@pytest.mark.parametrize(("number", "seed"), SIGNALS)
def test_a_signal_at_a_random_moment(run, moments, tmp_path, number, seed):
    if "calls" not in moments:
        code, _, calls = run(-1, lambda: None)
        assert code == 0
        moments.update(calls=len(calls), results=pictures(tmp_path / "o"))
        for file in [*(tmp_path / "o").iterdir(), tmp_path / "s.json"]:
            file.unlink()
    before = signal.getsignal(signal.SIGTERM)
    moment = random.Random(seed).randrange(5, moments["calls"] - 20)
    code, err, _ = run(moment, send(number))
    assert code == CODES[number]
    happened("signal", number, moment)
    assert "Traceback" not in err
    assert signal.getsignal(signal.SIGTERM) is before
    everything = sorted((tmp_path / "o").iterdir()) if (tmp_path / "o").exists() else []
    written = [path for path in everything if path.suffix != ".jsonl"]  # the manifest
    assert all(path.suffix == ".png" and read_image(path).shape == (3, 19, 21) for path in written)
    records = json.loads((tmp_path / "s.json").read_text()) if (tmp_path / "s.json").exists() else []
    finished = [record for record in records if record["status"] == "converged"]
    assert len(finished) == len(records)
    assert len(written) - 1 <= len(records) <= len(written)
    noted = read_records(tmp_path / "o")
    assert pictures(tmp_path / "o").keys() <= noted.keys()
    assert all(record["status"] == "converged" for record in noted.values())
    assert run(-1, lambda: None)[0] == 0
    assert pictures(tmp_path / "o") == moments["results"]
    assert read_records(tmp_path / "o").keys() == moments["results"].keys()


@pytest.mark.parametrize(("number", "operation"), WHILE_WRITING)
@pytest.mark.parametrize("folder", [False, True])
def test_a_signal_while_records_are_written(deqir, photo, tmp_path, monkeypatch, number, operation, folder):
    """It arrives in the middle of writing ``--stats``: the records are whole, and the exit code tells of it."""
    stats, write, replace = tmp_path / "s.json", Path.write_bytes, os.replace

    def interrupted_write(path, data):
        if data.startswith(b"[") and operation == "write":
            write(path, data[: len(data) // 2])
            send(number)()
        return write(path, data)

    def interrupted_rename(source, target):
        if Path(target) == stats and operation == "rename":
            send(number)()
        replace(source, target)

    monkeypatch.setattr(Path, "write_bytes", interrupted_write)
    monkeypatch.setattr(os, "replace", interrupted_rename)
    photos = [photo.parent] if folder else [photo]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, _, err = deqir(
            "restore", *photos, "--task", "sr", "--scale", "1", "--out", tmp_path / "o", "--stats", stats
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == CODES[number]
    happened("signal while writing", number, operation, folder)
    assert "Traceback" not in err
    (record,) = json.loads(stats.read_text())
    assert record["status"] == "converged"
    assert list(tmp_path.rglob("*.part")) == []


def test_sigterm_ends_a_real_process(photo, tmp_path, prior_folder):
    (tmp_path / "in").mkdir()
    for number in range(30):
        (tmp_path / "in" / f"{number:02}.png").write_bytes(photo.read_bytes())
    command = [sys.executable, "-m", "deqir", "restore", tmp_path / "in", "--task", "sr", "--out", tmp_path / "o",
               "--prior", prior_folder, "--steps", "40", "--stats", tmp_path / "s.json"]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "o").glob("*.png"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted after" in err
    assert "Traceback" not in err
    assert 2 <= len(json.loads((tmp_path / "s.json").read_text())) < 30
