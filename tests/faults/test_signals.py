"""SIGINT and SIGTERM at random moments of a run: exit code, no traceback, no half file, finished records kept."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from moments import at_call, happened, send

from deqir.cli.termination import terminated_as_interrupt
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
    while "calls" not in moments:  # the first run imports modules, too
        code, _, calls = run(-1, lambda: None)
        assert code == 0
        moments |= {"calls" if moments else "first": len(calls), "results": pictures(tmp_path / "o")}
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


DURING_IMPORT = """
import os, sys
import deqir.entry

class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Sender())
sys.argv = ["deqir", *{arguments!r}]
deqir.entry.main()
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("typer", signal.SIGINT),
        ("rich.console", signal.SIGTERM),
        ("torch", signal.SIGINT),
        ("diffusers.models.unets.unet_2d", signal.SIGINT),
        ("deqir.items", signal.SIGTERM),
    ],
)
def test_a_signal_during_an_import(photo, tmp_path, prior_folder, module, number):
    arguments = ["restore", photo, "--task", "sr", "--out", tmp_path / "o", "--prior", prior_folder, "--steps", "900"]
    code = DURING_IMPORT.format(module=module, number=int(number), arguments=[str(one) for one in arguments])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, preexec_fn=minded)
    assert done.returncode == CODES[number], done.stderr
    assert "Traceback" not in done.stderr and "Failed to import" not in done.stderr
    assert not list(tmp_path.glob("o/*.png"))


def minded():
    """A background job ignores SIGINT, and so would everything it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 0.6), (signal.SIGTERM, 1.5), (signal.SIGINT, 3.0)])
def test_a_signal_to_a_process_that_begins(photo, tmp_path, prior_folder, number, seconds):
    command = [sys.executable, "-m", "deqir", "restore", photo, "--task", "sr", "--out", tmp_path / "o",
               "--prior", prior_folder, "--steps", "900", "--solver", "serial"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=minded) as run:
        time.sleep(seconds)
        run.send_signal(number)
        _, err = run.communicate(timeout=600)
    assert run.returncode == CODES[number], err
    assert "Traceback" not in err and "Failed to import" not in err


SLOW = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.{name})
    time.sleep(0.2)
except BaseException as error:
    raise RuntimeError("Failed to import") from error
finished.append(True)
"""


def ended_by(body):
    """The exit code of a run of ``body``, while Ctrl-C is minded."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with terminated_as_interrupt():
            body()
    except SystemExit as ended:
        return ended.code
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_import_is_finished_before_a_signal_ends_the_run(tmp_path, monkeypatch, name):
    finished = []
    (tmp_path / "slow_import.py").write_text("from builtins import finished\n" + SLOW.format(name=name))
    monkeypatch.setattr("builtins.finished", finished, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_import", raising=False)

    def body():
        import_module("slow_import")
        time.sleep(60)

    started = time.monotonic()
    assert ended_by(body) == CODES[signal.Signals[name]]
    assert finished == [True]
    assert time.monotonic() - started < 50


def test_what_an_interrupt_has_become_on_its_way_does_not_matter():
    def body():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("it is something else now") from None

    assert ended_by(body) == 130
