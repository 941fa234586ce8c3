import json
import runpy
from contextlib import nullcontext
from pathlib import Path

import torch

from deqir.demo import TASKS, TITLES, demo_photo, observed, run_demo
from deqir.images import read_image
from deqir.sheet import Picture, draw_sheet

# With the real prior; tests/test_documentation.py runs every example with a tiny one.
EXAMPLE = Path(__file__).parents[1] / "examples" / "restore_in_python.py"


def test_the_demo_writes_its_sheet_pictures_and_records(tmp_path):
    seen = []
    sheet = run_demo(tmp_path, 2, 0, "cpu", lambda title: nullcontext(seen.append))
    assert read_image(sheet).shape[0] == 3
    records = json.loads((tmp_path / "demo.json").read_text())
    assert [record["task"]["name"] for record in records] == ["sr", "inpaint", "deblur"]
    for record in records:
        assert record["serial"]["sweeps"] == 2
        assert record["agreement_db"] is None or record["agreement_db"] > 45
        for solver in ("serial", "parallel"):
            restored = read_image(tmp_path / f"{record['task']['name']}-{solver}.png")
            assert restored.shape == demo_photo().shape[1:]
    assert seen


def test_a_sheet_shows_its_pictures():
    red = torch.zeros(1, 3, 4, 5)
    red[:, 0] = 1
    grey = torch.full((1, 1, 4, 5), 0.5)
    sheet = draw_sheet([[Picture("a", red, "one\ntwo"), Picture("b", grey)]], zoom=3)
    assert (sheet == torch.tensor([1.0, 0, 0]).view(3, 1, 1)).all(0).sum() == 4 * 5 * 9
    assert ((sheet * 255).round() == 128).all(0).sum() >= 4 * 5 * 9


def test_the_first_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out
    assert list(tmp_path.iterdir())


def test_an_observation_of_the_size_of_the_photo_shows_its_distance():
    truth = demo_photo()
    for name, figures in (("sr", False), ("inpaint", True), ("deblur", True)):
        (task,) = (task for task in TASKS if task.name == name)
        operator = task.operator(tuple(truth.shape[1:]))
        y = operator.forward(truth)
        shown = observed(task, operator.pinv(y), y, truth)
        assert shown.image.shape == truth.shape
        assert (" dB, SSIM" in shown.note) == figures and TITLES[name] in shown.note
