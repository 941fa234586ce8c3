"""Golden results of the built-in prior, and recorded runs made again."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import sentence
from deqir import operators
from deqir.priors import load_prior
from deqir.restoration import Restorer

GOLDEN = {
    "sr": [0.5, 0.34477, 0.5, 0.28903, 0.20988, 0.41041, 0.33156, 0.24855, 0.05481, 0.87464, 0.24287, 0.96454],
    "deblur": [0.5, 0.34477, 0.5, 0.28443, 0.21227, 0.39743, 0.33669, 0.14229, 0.05736, 0.78073, 0.09188, 0.84597],
    "denoise": [
        0.49737,
        0.34436,
        0.49878,
        0.27373,
        0.16923,
        0.38667,
        0.31759,
        0.16783,
        0.05584,
        0.7828,
        0.17614,
        0.84083,
    ],
}
"""Means, standard deviations, pixel (3, 5) and pixel (10, 12) of each channel. Whoever changes one says why in the
CHANGELOG; the tolerance leaves room for other processors and versions of torch."""


def scene():
    """A smooth picture with an edge, (1, 3, 16, 16) in [0, 1]."""
    across, down = torch.meshgrid(torch.linspace(0, 1, 16), torch.linspace(0, 1, 16), indexing="xy")
    return torch.stack([across, (across - down).sin().abs(), (down > 0.5).float()])[None].clamp(0.1, 0.9)


@pytest.fixture
def run(deqir, photo, tmp_path):
    """A recorded run of two files by the tiny prior; returns the file of records."""
    second = tmp_path / "second.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (8, 9, 3), dtype=np.uint8)).save(second)
    stats = tmp_path / "run.json"
    code, _, err = deqir("restore", photo, second, "--task", "sr", "--scale", "2", "--out", tmp_path / "o", "--stats",
                         stats, "--solver", "preconditioned", "--simulate", "--noise", "0.05")  # fmt: skip
    assert code == 0, err
    return stats


def changed(stats, change):
    records = json.loads(stats.read_text())
    change(records[0])
    stats.write_text(json.dumps(records))


def test_a_run_is_repeated_to_the_bit(deqir, run):
    code, out, err = deqir("verify", run)
    assert code == 0, err
    assert out.count(": identical") == 2
    assert "2 records: 2 identical, 0 equal" in err


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"noise": 0.2}, {"task_settings": {"name": "sr", "scale": 3}}], ids=str
)
def test_other_settings_give_a_mismatch(deqir, run, change):
    changed(run, lambda record: record["job"].update(change))
    code, out, err = deqir("verify", run)
    assert code == 1
    assert "different: by" in out
    assert "1 identical" in err


def test_a_small_difference_is_measured_against_the_limit(deqir, run):
    (record, _) = json.loads(run.read_text())
    pixels = np.asarray(Image.open(record["out"])).copy()
    pixels[0, 0, 0] ^= 4
    Image.fromarray(pixels).save(record["out"])
    digest = hashlib.sha256(Path(record["out"]).read_bytes()).hexdigest()
    changed(run, lambda record: record.update(out_sha256=digest))
    assert deqir("verify", run)[0] == 1
    code, out, _ = deqir("verify", run, "--grey-levels", "4")
    assert code == 0
    assert "equal within the tolerance: by 4.00 grey levels at most" in out


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: record.update(job=None), "does not say where its prior came from"),
        (lambda record: record.update(warm_start=True), "began from the frame before it"),
        (lambda record: record.update(file_sha256="0"), "the file was changed since"),
        (lambda record: record.update(file="gone.png"), "gone.png does not exist"),
        (lambda record: record["job"]["options"].update(device="cuda:9"), "not available"),
        (lambda record: record.update(error="x"), "it failed when it was recorded"),
        (lambda record: record.pop("job"), "not complete or damaged"),
        (lambda record: record["job"].update(options=3), "not complete or damaged"),
    ],
)
def test_what_cannot_be_repeated_is_said(deqir, run, change, reason):
    changed(run, change)
    code, out, err = deqir("verify", run)
    assert (code, err.count("1 not repeated")) == (0, 1)
    assert reason in out
    records = json.loads(run.read_text())
    run.write_text(json.dumps(records[:1]))
    assert deqir("verify", run)[0] == 1  # nothing was verified


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "[1]", '"text"'])
def test_a_file_without_records(deqir, tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    code, _, err = deqir("verify", tmp_path / "run.json")
    assert code == 1
    assert "give a file of" in sentence(err)


@pytest.mark.parametrize("name", ["sr", "deblur", "denoise"])
def test_golden_results_of_the_built_in_prior(name):
    operator, options = {
        "sr": (operators.SuperResolution(4), {"eta": 0.85}),
        "deblur": (operators.Deblurring(operators.gaussian_kernel(5, 1.5)), {"eta": 0.0}),
        "denoise": (operators.Denoising(), {"noise": 0.1}),
    }[name]
    y = operator.forward(scene())
    result = Restorer(load_prior(), operator, steps=8, solver="serial", device="cpu", **options).restore(y, seed=3)
    image = result.image[0]
    found = [*image.mean((1, 2)), *image.std((1, 2)), *image[:, 3, 5], *image[:, 10, 12]]
    torch.testing.assert_close(torch.stack(found), torch.tensor(GOLDEN[name]), rtol=0, atol=2e-3)


COMMANDS = {
    "optimize": ("--task", "inpaint", "--simulate", "--variation", "1", "--iterations", "2", "--solver", "serial"),
    "invert": ("--steps", "5"),
    "explain": ("--task", "sr", "--scale", "2", "--region", "0,0,3,3", "--probes", "2", "--seeds", "2",
                "--solver", "serial"),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_other_commands_are_repeated_from_their_records(deqir, photo, tmp_path, command):
    code, _, err = deqir(command, photo, *COMMANDS[command], "--out", tmp_path / "o")
    assert code == 0, err
    record = tmp_path / "o" / f"{photo.stem}.json"
    before = {path.name: path.read_bytes() for path in record.parent.iterdir()}
    code, out, err = deqir("verify", record)
    assert (code, out.strip()) == (0, f"{photo}: identical"), err
    assert len(err.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in record.parent.iterdir()} == before
    changed_record = json.loads(record.read_text())
    changed_record["command"]["options"]["steps"] = 4
    record.write_text(json.dumps(changed_record))
    code, out, _ = deqir("verify", record)
    assert code == 1 and "different: by" in out
    Image.new("RGB", (9, 9)).save(photo)
    code, out, _ = deqir("verify", record)
    assert code == 1 and "not repeated: the file was changed since" in out


def test_settings_of_the_page_are_sent_to_restore(deqir, tmp_path):
    saved = tmp_path / "settings.json"
    saved.write_text(json.dumps({"settings": {}, "result": {"status": "converged"}}))
    code, _, err = deqir("verify", saved)
    assert code == 1 and f"use deqir restore PHOTO --config {saved}" in sentence(err)


HOSTILE = {"restore": {"task": "sr", "scale": 2, "solver": "serial"}, "degrade": {"task": "sr"}, "priors": {}, "": {}}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_record_runs_no_other_command_and_writes_nowhere(deqir, photo, tmp_path, prior_folder, name):
    victim = tmp_path / "victim.json"
    victim.write_text("mine")
    options = HOSTILE[name] | {"steps": 2, "prior": str(prior_folder), "stats": str(victim), "overwrite": True}
    record = tmp_path / "hostile" / "r.json"
    record.parent.mkdir()
    digest = hashlib.sha256(photo.read_bytes()).hexdigest()
    about = {"file": str(photo), "file_sha256": digest, "status": "x", "outputs": {"photo.png": "00"}}
    record.write_text(json.dumps(about | {"command": {"name": name, "options": options}}))
    code, out, _ = deqir("verify", record)
    assert code == 1 and f"not repeated: it is of the command {name!r}" in out
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"steps": "abc"}, "its options do not fit invert (Invalid value"),
        ({"steps": {"a": 1}}, "not repeated"),
        ({"steps": 0}, "steps"),
        ({"out_dir": "elsewhere", "overwrite": True, "help": True, "photo": "x"}, ": identical"),
        ({"unheard": "of"}, ": identical"),
    ],
)
def test_options_of_a_record_are_taken_with_care(deqir, photo, tmp_path, monkeypatch, options, reason):
    monkeypatch.chdir(tmp_path)
    assert deqir("invert", photo, "--out", tmp_path / "o")[0] == 0
    record = tmp_path / "o" / f"{photo.stem}.json"
    content = json.loads(record.read_text())
    content["command"]["options"].update(options)
    record.write_text(json.dumps(content))
    _, out, err = deqir("verify", record)
    assert reason in out and len(out.splitlines()) == 1 and len(err.splitlines()) == 1
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["job"]["options"].update(spacing={"a": 1}),
        lambda record: record["job"]["options"].update(device=10**30),
        lambda record: record["job"]["options"].update(tolerance=[1]),
        lambda record: record["job"].update(seed={}),
        lambda record: record.update(out="x" * 5000 + ".png", out_sha256="0"),
        lambda record: record.update(file="/dev/zero"),
    ],
)
def test_nonsense_in_a_record_is_said_in_one_line(deqir, run, change):
    changed(run, change)
    code, out, err = deqir("verify", run)
    assert (code, len(out.splitlines()), len(err.splitlines())) == (0, 2, 1)
    assert "not repeated: " in out


def test_a_result_of_another_size_is_different(deqir, photo, tmp_path):
    stats = tmp_path / "run.json"
    deqir("restore", photo, "--task", "sr", "--scale", "2", "--out", tmp_path / "o", "--stats", stats)
    changed(stats, lambda record: record["job"]["task_settings"].update(scale=3))
    code, out, _ = deqir("verify", stats)
    assert code == 1 and "different: in size" in out


def test_values_that_are_not_finite_are_different(deqir, photo, tmp_path):
    from safetensors.torch import load_file, save_file

    deqir("invert", photo, "--out", tmp_path / "o")
    record, noise = tmp_path / "o" / f"{photo.stem}.json", tmp_path / "o" / f"{photo.stem}-noise.safetensors"
    for data in ({name: value * torch.nan for name, value in load_file(noise).items()}, None):
        noise.write_bytes(b"damaged") if data is None else save_file(data, noise)
        content = json.loads(record.read_text())
        content["outputs"][noise.name] = hashlib.sha256(noise.read_bytes()).hexdigest()
        record.write_text(json.dumps(content))
        code, out, _ = deqir("verify", record)
        assert code == 1 and ("different: in size or by values" if data else "is not a readable safetensors") in out


@pytest.mark.parametrize("folder", [False, True])
def test_the_record_in_a_report_is_repeated(deqir, photo, tmp_path, folder):
    pytest.importorskip("matplotlib")
    source = tmp_path / "in"
    source.mkdir()
    moved = photo.rename(source / photo.name)
    arguments = ("--task", "sr", "--scale", "2", "--out", tmp_path / "o", "--report", "--solver", "serial")
    code, _, err = deqir("restore", source if folder else moved, *arguments)
    assert code == 0, err
    report = tmp_path / "o" / f"{photo.stem}-report"
    for named in (report / "run.json", report):
        code, out, err = deqir("verify", named)
        assert code == 0 and ": identical" in out, out + err


@pytest.mark.parametrize("folder", [False, True])
def test_a_mask_that_was_changed_is_named(deqir, photo, tmp_path, folder):
    source, mask, stats = tmp_path / "in", tmp_path / "mask.png", tmp_path / "run.json"
    source.mkdir()
    photo = photo.rename(source / photo.name)
    Image.fromarray(np.arange(19 * 21, dtype=np.uint8).reshape(19, 21) // 128 * 255).save(mask)
    arguments = ("--task", "inpaint", "--mask", mask, "--solver", "serial", "--out", tmp_path / "o", "--stats", stats)
    code, _, err = deqir("restore", source if folder else photo, *arguments)
    assert code == 0, err
    assert ": identical" in deqir("verify", stats)[1]
    Image.new("L", (21, 19), 255).save(mask)
    code, out, _ = deqir("verify", stats)
    assert code == 1 and f"not repeated: the file {mask} was changed since" in out


def test_a_guide_that_was_changed_is_named(deqir, photo, tmp_path):
    guide = tmp_path / "guide.png"
    Image.new("RGB", (21, 19)).save(guide)
    arguments = ("--task", "denoise", "--noise", "0.1", "--guide", guide, "--iterations", "1", "--solver", "serial")
    code, _, err = deqir("optimize", photo, *arguments, "--out", tmp_path / "o")
    assert code == 0, err
    record = tmp_path / "o" / f"{photo.stem}.json"
    assert ": identical" in deqir("verify", record)[1]
    Image.new("RGB", (21, 19), (200, 0, 0)).save(guide)
    assert f"the file {guide} was changed since" in deqir("verify", record)[1]


def test_a_window_that_auto_chose_is_repeated(photo, tmp_path, prior_folder, monkeypatch):
    from deqir import restoration
    from deqir.choice import SolverChoice
    from deqir.jobs import RestoreJob
    from deqir.reproduction import Outcome, verify_record

    def chosen(chain, window=None, bounded=False):
        return SolverChoice("preconditioned", "forced", 4)

    seen, options = [], {"steps": 20, "solver": "auto", "device": "cpu"}
    origin = {"source": str(prior_folder)}
    job = RestoreJob(load_prior(prior_folder), {"name": "sr", "scale": 2}, options, origin=origin, bits=16)
    with monkeypatch.context() as patched:
        patched.setattr(restoration, "choose_solver", chosen)
        record = job.run(photo, tmp_path / "o.png")
    assert record["window"] == 4
    plain = Restorer._restore
    monkeypatch.setattr(Restorer, "_restore", lambda self, *rest: (seen.append(self.window), plain(self, *rest))[1])
    assert verify_record(json.loads(json.dumps(record))).outcome is Outcome.IDENTICAL
    assert seen == [4]
