"""Help with examples that work, completion, ``python -m`` and ``deqir doctor``."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from typing import get_args
from urllib.request import urlopen

import pytest
import torch
import typer.main
from packaging.requirements import Requirement

from conftest import sentence
from deqir import doctor
from deqir.cli import app, words
from deqir.images import write_image
from priors.formats import DDPM, ddpm, random_state

COMMANDS = sorted(typer.main.get_command(app).commands)
NEEDS_A_RUN = ("restore", "photo.jpg", "--task", "inpaint", "--steps", "2", "--out", "results")
FIRST = {"report": (*NEEDS_A_RUN, "--report"), "verify": (*NEEDS_A_RUN, "--stats", "run.json")}
SERVERS = ("ui",)  # their examples run until they are stopped


@pytest.fixture
def folder(tmp_path, monkeypatch, prior_folder):
    """The files that the examples name, the tiny prior in the place of the built-in one and a smaller demo photo."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deqir.priors.loading.BUILTIN_FOLDER", prior_folder)
    monkeypatch.setattr("deqir.demo.REDUCTION", 16)
    monkeypatch.setenv("COLUMNS", "80")
    photo = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "one.png", photo)
    write_image(tmp_path / "photo.jpg", photo)
    write_image(tmp_path / "small.jpg", photo[:, :2, :2])
    torch.save(dict(random_state(ddpm, DDPM())), tmp_path / "celeba_hq.ckpt")
    return tmp_path


def serves(words):
    """Start the example ``words`` on a free port, ask its page once, and interrupt it."""
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    number = words.index("--port") + 1
    words = [*words[1:number], port, *words[number + 1 :]]
    command = [sys.executable, "-m", "deqir", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        try:
            line = process.stdout.readline()
            assert f"http://127.0.0.1:{port}/" in line, process.stderr.read()
            with urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
                assert answer.status == 200 and "deqir" in answer.read().decode()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
            assert process.returncode == 0
        finally:
            process.kill()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_first_screen_of_help_has_an_example_that_works_as_printed(deqir, folder, command):
    code, help_text, _ = deqir(command, "--help", prior=False)
    assert code == 0
    examples = re.findall(r"^ *Example: +(deqir .*?) *$", "\n".join(help_text.splitlines()[:24]), re.MULTILINE)
    assert len(examples) == 1
    words = shlex.split(examples[0])
    assert words[1] == command
    if command in SERVERS:
        serves(words)
        return
    if command in FIRST:
        assert deqir(*FIRST[command], prior=False)[0] == 0
    before = {path.name for path in folder.iterdir()}
    code, out, err = deqir(*words[1:], prior=False)
    assert code == 0, err
    made = {path.name for path in folder.iterdir()} - before
    assert made or out


def test_the_list_of_commands_has_one_example_and_does_not_repeat_those_of_the_commands(deqir):
    code, help_text, _ = deqir("--help", prior=False)
    assert code == 0
    (example,) = re.findall(r"Example: +deqir (\S+) ", help_text)
    assert example in COMMANDS
    assert all(command in help_text for command in COMMANDS)


def test_python_m_deqir_is_deqir():
    run = subprocess.run([sys.executable, "-m", "deqir", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"deqir {doctor.__version__}\n"


def test_the_shell_completes_commands():
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'deqir'; from deqir.cli import main; main()"]
    asked = {"_DEQIR_COMPLETE": "complete_bash", "COMP_WORDS": "deqir de", "COMP_CWORD": "1"}
    run = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True)
    assert {"degrade", "demo"} <= set(run.stdout.split())
    assert "restore" not in run.stdout


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("restore --task old", {"old-photo"}),
        ("restore --solver p", {"picard", "preconditioned"}),
        ("degrade --mask t", {"text"}),
        ("optimize --optimizer a", {"adam"}),
        ("restore --rule ddn", {"ddnm", "ddnm+"}),
    ],
)
def test_the_shell_completes_fixed_words(monkeypatch, capsys, typed, expected):
    words = ["deqir", *typed.split()]
    monkeypatch.setattr(sys, "argv", ["deqir"])
    monkeypatch.setenv("_DEQIR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit):
        app(prog_name="deqir")
    assert set(capsys.readouterr().out.split()) == expected


def test_the_words_that_are_completed_are_those_that_are_taken():
    from deqir.averaging import AVERAGE
    from deqir.cli.folder import SHARDS
    from deqir.consistency.choice import RuleName
    from deqir.images import FORMATS
    from deqir.initialization import Variables
    from deqir.operators.boundaries import Boundary
    from deqir.operators.colorization import NAMED_WEIGHTS
    from deqir.operators.superresolution import DownsamplingKernel
    from deqir.optimizers import OptimizerName
    from deqir.restoration import DTYPES, SolverName
    from deqir.schedule import SpacingName
    from deqir.tasks import BLURS, MASKS, TASKS

    taken = {
        "TASKS": TASKS, "MADE_MASKS": MASKS, "BLURS": BLURS, "BOUNDARIES": get_args(Boundary), "WEIGHTS": NAMED_WEIGHTS,
        "DOWNSAMPLINGS": get_args(DownsamplingKernel), "SOLVERS": get_args(SolverName), "RULES": get_args(RuleName),
        "SPACINGS": get_args(SpacingName), "DTYPES": DTYPES, "FORMATS": FORMATS, "SHARDS": SHARDS,
        "OPTIMIZERS": get_args(OptimizerName), "VARIABLES": get_args(Variables),
    }  # fmt: skip
    assert words.AVERAGE == AVERAGE
    assert {name: set(getattr(words, name)) for name in taken} == {name: set(known) for name, known in taken.items()}


def test_doctor_tells_versions_devices_memory_and_caches(deqir, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    code, out, _ = deqir("doctor", "--json")
    assert code == 0
    findings = json.loads(out)
    assert findings["packages"]["torch"] == version("torch")
    assert findings["devices"][0]["threads"] == torch.get_num_threads()
    assert 0 < findings["memory"]["available"] <= findings["memory"]["total"]
    assert findings["caches"]["weights"] == {"folder": str(tmp_path / "hub" / "checkpoints"), "holds": []}
    code, text, _ = deqir("doctor")
    assert code == 0
    assert f"deqir {doctor.__version__}, Python {findings['python']}" in text
    assert str(tmp_path) in text


def test_doctor_names_what_is_missing_in_an_extra_and_in_those_it_takes_in():
    texts = ['pytest>=1; extra == "a"', 'no-such-package; extra == "b"', 'deqir[b]; extra == "a"', "torch>=2"]
    found = doctor.extras(map(Requirement, texts))
    assert found["a"] == {"pytest": pytest.__version__, "no-such-package": "missing"}
    assert found["b"] == {"no-such-package": "missing"}


def test_doctor_loads_the_built_in_prior_and_fails_where_it_cannot(deqir, tmp_path, monkeypatch, prior_folder):
    for folder in ("good", "bad"):
        shutil.copytree(prior_folder, tmp_path / folder)
    weights = next((tmp_path / "bad").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    monkeypatch.setattr("deqir.priors.loading.BUILTIN_FOLDER", tmp_path / "good")
    code, text, _ = deqir("doctor")
    assert (code, "built-in prior: loads\n" in text) == (0, True)
    monkeypatch.setattr("deqir.priors.loading.BUILTIN_FOLDER", tmp_path / "bad")
    code, text, err = deqir("doctor", "--json")
    assert code == 1
    assert json.loads(text)["prior"]["state"].startswith("does not load: ")
    assert "the built-in prior does not load: " in sentence(err)


def test_doctor_fails_where_a_needed_package_is_missing_or_too_old(deqir, monkeypatch):
    monkeypatch.setattr(doctor, "requires", lambda name: ["no-such-package", "pytest>=9999", "torch>=2"])
    code, _, err = deqir("doctor")
    assert code == 1
    problems = [line for line in err.splitlines() if line.startswith("deqir: ")]
    assert len(problems) == 2
    assert "no-such-package is missing; run pip install" in problems[0]
    assert ">=9999 is needed" in problems[1]
