"""The command line for scripts: saved settings, dry runs, quiet and JSON output."""

import json
import sys

import pytest
import torch

from deqir.cli import main
from deqir.images import read_image


@pytest.fixture
def deqir(monkeypatch, capsys, prior_folder):
    """Run ``deqir`` with arguments; returns (exit code, standard output, standard error)."""

    def run(*arguments):
        command = ["deqir", *map(str, arguments)]
        if arguments[0] == "restore":
            command += ["--prior", str(prior_folder)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def config(tmp_path):
    """Write a config file of ``content``."""

    def write(content):
        file = tmp_path / "config.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return write


def test_a_saved_record_repeats_the_run_exactly(deqir, photo, tmp_path):
    asked = ["--task", "deblur", "--blur", "motion", "--noise", "0.02", "--steps", "3", "--eta", "0.5", "--seed", "4"]
    asked += [
        "--solver",
        "picard",
        "--max-sweeps",
        "2",
        "--tolerance",
        "0.1",
        "--spacing",
        "900,500,100",
        "--simulate",
        "--rule",
        "diffpir",
    ]
    stats = tmp_path / "stats.json"
    assert deqir("restore", photo, *asked, "--stats", stats, "--out", tmp_path / "first")[0] == 0
    (record,) = json.loads(stats.read_text())
    code, out, err = deqir("restore", photo, "--config", stats, "--json", "--out", tmp_path / "again")
    assert code == 0, err
    again = json.loads(out)
    for own in ("seconds", "out", "job"):  # its time, its file, and how it was asked for
        assert record.pop(own) is not None and again.pop(own) is not None
    assert record == again
    first, second = (read_image(tmp_path / folder / "photo.png") for folder in ("first", "again"))
    assert torch.equal(first, second)


def test_the_command_line_wins_over_the_config(deqir, photo, tmp_path, config):
    file = config({"task": "sr", "scale": 3, "steps": 2, "seed": 7, "solver": "serial", "noise": None})
    code, out, err = deqir("restore", photo, "--config", file, "--seed", "8", "--json", "--out", tmp_path / "o")
    assert code == 0, err
    record = json.loads(out)
    assert (record["task_settings"]["scale"], record["steps"], record["seed"]) == (3, 2, 8)


def test_settings_of_the_web_page_are_a_config(deqir, photo, tmp_path, config):
    saved = {
        "task": {"name": "sr", "scale": 2},
        "steps": 2,
        "seed": 5,
        "side": 64,
        "solver": "serial",
        "simulate": True,
    }
    code, out, err = deqir("restore", photo, "--config", config({"settings": saved, "result": {}}), "--json", "--out",
                           tmp_path / "o")  # fmt: skip
    assert code == 0, err
    record = json.loads(out)
    assert (record["seed"], record["steps"], record["task_settings"]["scale"]) == (5, 2, 2)
    assert record["psnr"] > 0


@pytest.mark.parametrize(
    ("content", "message", "expected"),
    [
        ("{", "is not readable JSON", 1),
        ("[]", "holds no single JSON object", 1),
        ({"stepps": 3}, "holds stepps, which restore does not know; remove it", 2),
        ({"task": "sr", "steps": "many"}, "--steps", 2),
    ],
)
def test_a_config_that_does_not_fit_gets_one_sentence(deqir, photo, tmp_path, config, content, message, expected):
    code, _, err = deqir("restore", photo, "--config", config(content), "--out", tmp_path / "o")
    assert code == expected and message in err and "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_a_missing_config_gets_one_sentence(deqir, photo, tmp_path):
    code, _, err = deqir("restore", photo, "--config", tmp_path / "no.json", "--out", tmp_path / "o")
    assert code == 1 and "no.json does not exist" in err


def test_a_dry_run_checks_and_writes_nothing(deqir, photo, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    before = sorted(tmp_path.rglob("*"))
    arguments = ["--task", "sr", "--scale", "2", "--dry-run", "--report", "--stats", tmp_path / "s.json"]
    code, out, err = deqir("restore", photo, bad, *arguments, "--out", tmp_path / "o")
    assert code == 1 and "bad.png is not a readable" in err and "1 of 2 could be restored, 1 failed" in err
    assert out.strip() == f"{photo} -> {tmp_path / 'o' / 'photo.png'}: would restore sr, 42 x 38 pixels, colour"
    code, out, _ = deqir("restore", photo, *arguments, "--json", "--out", tmp_path / "o")
    assert code == 0 and json.loads(out)["shape"] == [3, 38, 42]
    assert sorted(tmp_path.rglob("*")) == before


def test_quiet_prints_errors_only(deqir, photo, tmp_path):
    arguments = ["--task", "sr", "--scale", "2", "--steps", "2", "--quiet", "--out", tmp_path / "o"]
    assert deqir("restore", photo, *arguments) == (0, "", "")
    code, out, err = deqir("restore", photo, *arguments)
    assert code == 1 and out == "" and "exists already" in err


def test_json_is_one_record_a_line(deqir, photo, tmp_path):
    arguments = ["--task", "sr", "--scale", "2", "--steps", "2", "--json", "--out", tmp_path / "o"]
    code, out, err = deqir("restore", photo, photo, *arguments)
    assert code == 0 and err == ""
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["converged", "converged"]
