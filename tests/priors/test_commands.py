"""deqir priors, convert and restore with any checkpoint."""

import json
import sys

import pytest
import torch
from formats import Guided, guided, random_state

from deqir.cli import main
from deqir.priors import load_prior


@pytest.fixture
def deqir(monkeypatch, capsys):
    """Run ``deqir`` with arguments; returns (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["deqir", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("conditional") / "small.pt"
    torch.save(dict(random_state(guided, Guided(heads=2, classes=4), label=0)), path)
    return path


def test_priors_lists_size_licence_and_origin(deqir):
    code, out, _ = deqir("priors")
    assert code == 0
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert "6.5 M" in lines["builtin"] and "13 MB" in lines["builtin"] and "here" in lines["builtin"]
    assert "113.7 M" in lines["google/ddpm-celebahq-256"] and "Apache-2.0" in lines["google/ddpm-celebahq-256"]
    assert "github.com/openai/guided-diffusion" in lines["256x256_diffusion_uncond.pt"]


@torch.no_grad()
def test_convert_then_load(deqir, file, tmp_path):
    arguments = ("convert", file, "--out", tmp_path / "folder", "--prior-option", "num_heads=2")
    code, out, err = deqir(*arguments)
    assert (code, err) == (0, "")
    assert "3 channels, 1000 timesteps" in out
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([7])
    expected = load_prior(file, num_heads=2, label=1)(x, t)
    torch.testing.assert_close(load_prior(tmp_path / "folder", label=1)(x, t), expected, rtol=0, atol=0)
    code, _, err = deqir(*arguments)
    assert code == 1
    assert "add --overwrite" in err
    assert deqir(*arguments, "--overwrite")[0] == 0


def test_restore_with_a_checkpoint_a_label_and_a_list_of_timesteps(deqir, file, photo, tmp_path):
    code, _, err = deqir(
        "restore", photo, "--task", "sr", "--scale", "2", "--out", tmp_path / "o", "--prior", file,
        "--prior-option", "num_heads=2", "--prior-option", "null_label=3", "--label", "1", "--guidance", "1.5",
        "--spacing", "900,300,0", "--solver", "serial", "--stats", tmp_path / "s.json",
    )  # fmt: skip
    assert code == 0, err
    (record,) = json.loads((tmp_path / "s.json").read_text())
    assert record["prior"] == "small (class 1, guidance 1.5)"
    assert (record["steps"], record["spacing"], record["nfe"]) == (3, [900, 300, 0], 3)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--prior-option", "num_heads=2"], 2, "conditional on 4 classes; choose one with label"),
        (["--prior-option", "num_heads=2", "--label", "9"], 2, "label is 9"),
        (["--prior-option", "num_heads"], 2, "write it as name=value"),
        (["--prior-option", "num_heads=two"], 2, "num_heads is 'two'"),
        (["--prior-option", "magic=1"], 2, "no option 'magic'"),
        (["--label", "1"], 1, "give num_heads or num_head_channels"),
        (["--prior-option", "num_heads=2", "--label", "1", "--spacing", "5,9"], 2, "do not descend"),
    ],
)
def test_mistakes_are_one_sentence_and_touch_nothing(deqir, file, photo, tmp_path, arguments, code, message):
    ended, _, err = deqir("restore", photo, "--task", "sr", "--out", tmp_path / "o", "--prior", file, *arguments)
    assert ended == code
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("deqir: ")]) == 1
    assert not (tmp_path / "o").exists()
