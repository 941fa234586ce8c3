"""Whole folders: the stream, going on after an interrupt or a kill, and results that do not depend on either."""

import json
import random
import signal
import time

import pytest
import torch

from conftest import sentence
from deqir.errors import DeviceError
from deqir.images import read_image, write_image
from deqir.jobs import RestoreJob
from deqir.noise import SeededNoise
from deqir.pipeline import Pipeline
from processes import command, finish, start, wait_for


@pytest.fixture
def photos(tmp_path):
    """Seven photos of two sizes, and one that is none."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(7):
        random_numbers = torch.Generator().manual_seed(number)
        write_image(folder / f"{number}.png", torch.rand(3, 6, 10 if number % 3 == 2 else 8, generator=random_numbers))
    (folder / "words.jpg").write_text("not a picture")
    return folder


@pytest.fixture
def restore(deqir, photos, tmp_path):
    """Run ``deqir restore`` on the folder; the results go to the folder called ``name``."""

    def run(name="out", *extra):
        return deqir("restore", photos, "--task", "sr", "--scale", "2", "--out", tmp_path / name, *extra)

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("manifest")}


def lines(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_a_folder_gets_one_line_an_image_and_survives_bad_files(restore, tmp_path):
    code, out, err = restore("out", "--together", "4", "--stats", tmp_path / "s.json")
    assert code == 1 and "7 of 8 restored, 1 failed" in err
    assert "words.jpg is not a readable" in sentence(err)
    records = {line["out"]: line for line in lines(tmp_path / "out")}
    assert sorted(records) == [*(f"{k}.png" for k in range(7)), "words.png"]
    assert records.pop("words.png")["status"] == "failed"
    assert [records[f"{k}.png"]["batch"] for k in range(7)] == [3, 3, 1, 3, 2, 1, 2]
    assert all(record["solver_reason"].startswith("auto: ") for record in records.values())
    assert len(out.splitlines()) == 7
    assert [record["out"] for record in json.loads((tmp_path / "s.json").read_text())] == [
        str(tmp_path / "out" / name) for name in [*sorted(records), "words.png"]
    ]


def test_what_fails_together_is_tried_alone(restore, tmp_path, monkeypatch):
    restored = RestoreJob.restored

    def cramped(job, problems, *rest):
        if len(problems) > 1 or problems[0].shape[2] == 20:
            raise DeviceError("the device ran out of memory; choose smaller images")
        return restored(job, problems, *rest)

    monkeypatch.setattr(RestoreJob, "restored", cramped)
    code, _, err = restore("out", "--together", "8")
    assert code == 1 and "5 of 8 restored, 3 failed" in err
    assert contents(tmp_path / "out").keys() == {"0.png", "1.png", "3.png", "4.png", "6.png"}
    assert [line["out"] for line in lines(tmp_path / "out") if "ran out of memory" in line.get("error", "")] == [
        "2.png",
        "5.png",
    ]


@pytest.mark.parametrize("solver", ["serial", "preconditioned"])
def test_a_batch_gives_what_its_files_give_alone(restore, deqir, photos, tmp_path, solver):
    chosen = ("--solver", solver, "--tolerance", "0", "--dtype", "float64", "--depth", "16")
    restore("together", "--together", "8", *chosen)
    for number in range(7):
        alone = ("--task", "sr", "--scale", "2", "--out", tmp_path / "alone", *chosen)
        assert deqir("restore", photos / f"{number}.png", *alone)[0] == 0
        pair = [read_image(tmp_path / name / f"{number}.png") for name in ("together", "alone")]
        torch.testing.assert_close(*pair, rtol=0, atol=1.01 / 65535)


def test_a_second_run_does_nothing_but_what_changed(restore, photos, tmp_path, monkeypatch):
    restore("out", "--together", "4")
    first = contents(tmp_path / "out")
    (tmp_path / "out" / "1.png").unlink()
    write_image(photos / "2.png", torch.rand(3, 4, 4))
    write_image(photos / "new.png", torch.rand(3, 4, 4))
    before = len(lines(tmp_path / "out"))
    _, out, err = restore("out", "--together", "4")
    assert "3 of 9 restored, 1 failed, 5 were done before" in err
    second = contents(tmp_path / "out")
    assert {name for name in first if first[name] != second[name]} == {"2.png"}
    assert read_image(tmp_path / "out" / "2.png").shape == (3, 8, 8)
    assert {line["out"] for line in lines(tmp_path / "out")[before:]} == {"1.png", "2.png", "new.png", "words.png"}
    (photos / "words.jpg").unlink()
    monkeypatch.setattr("deqir.problems.read_observation", None)
    code, out, err = restore("out", "--together", "4")
    assert (code, out) == (0, "") and "0 of 8 restored, 0 failed, 8 were done before" in err


def test_the_manner_changes_what_is_said_and_not_what_is_kept(restore, tmp_path):
    restore("plain", "--together", "4")
    code, out, err = restore("quiet", "--together", "4", "--quiet")
    assert (code, out) == (1, "") and len(err.splitlines()) == 1
    code, out, err = restore("said", "--together", "4", "--json")
    assert code == 1 and len(err.splitlines()) == 1
    assert [json.loads(line)["out"] for line in out.splitlines()] == [line["out"] for line in lines(tmp_path / "said")
                                                                      if "error" not in line]  # fmt: skip
    assert contents(tmp_path / "plain") == contents(tmp_path / "quiet") == contents(tmp_path / "said")
    assert "7 were done before" in restore("said", "--together", "4")[2]


def test_a_plan_for_a_folder_knows_what_is_done_and_writes_nothing(restore, tmp_path):
    code, out, err = restore("out", "--dry-run")
    assert code == 1 and "7 would be restored, 1 could not be, 0 are done" in err
    assert len(out.splitlines()) == 7 and not (tmp_path / "out").exists()
    restore()
    (tmp_path / "out" / "1.png").unlink()
    before = contents(tmp_path / "out"), lines(tmp_path / "out")
    code, out, err = restore("out", "--dry-run")
    assert code == 1 and "1 would be restored, 1 could not be, 6 are done" in err
    assert out.startswith(str(tmp_path / "in" / "1.png"))
    assert (contents(tmp_path / "out"), lines(tmp_path / "out")) == before


def test_reports_of_a_folder_are_kept_by_the_manifest_too(restore, tmp_path):
    code, _, err = restore("out", "--steps", "3", "--report", "--solver", "preconditioned")
    assert code == 1 and "7 of 8 restored, 1 failed" in err
    reports = sorted((tmp_path / "out").glob("*/run.json"))
    assert len(reports) == 7
    assert json.loads(reports[0].read_text())["settings"]["sweeps"] >= 1
    assert [line["batch"] for line in lines(tmp_path / "out") if "batch" in line] == [1] * 7
    again = restore("out", "--steps", "3", "--report", "--solver", "preconditioned")
    assert "0 of 8 restored, 1 failed, 7 were done before" in again[2]


def test_a_folder_of_results_can_be_verified(restore, deqir, tmp_path):
    restore("out", "--together", "1", "--stats", tmp_path / "s.json")
    for recorded in (tmp_path / "out", tmp_path / "out" / "manifest.jsonl", tmp_path / "s.json"):
        code, out, err = deqir("verify", recorded)
        assert code == 0, err
        assert "8 records: 7 identical, 0 equal within the tolerance, 0 different, 1 not repeated" in err
    manifest = tmp_path / "out" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    code, out, err = deqir("verify", tmp_path / "out")
    assert code == 1 and "7 different" in err and out.count("different: by") == 7


def test_other_settings_need_another_folder_or_overwrite(restore, photos, tmp_path):
    restore()
    code, _, err = restore("out", "--seed", "1")
    assert code == 1
    assert "seed was 0, is 1); add --overwrite" in sentence(err)
    code, _, err = restore("out", "--seed", "1", "--overwrite")
    assert "7 of 8 restored" in err
    (tmp_path / "mask.png").write_bytes((photos / "0.png").read_bytes())
    masked = ("--task", "inpaint", "--mask", tmp_path / "mask.png")
    restore("masked", *masked)
    (tmp_path / "mask.png").write_bytes((photos / "1.png").read_bytes())
    assert "contents was" in sentence(restore("masked", *masked)[2])


def test_results_of_others_are_kept(restore, photos, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "3.png").write_bytes(b"mine")
    code, _, err = restore()
    assert code == 1 and "6 of 8 restored, 2 failed" in err
    assert "3.png exists already; choose another output or add --overwrite" in err
    assert (tmp_path / "out" / "3.png").read_bytes() == b"mine"
    (photos / "words.jpg").unlink()
    before = contents(photos)
    code, _, err = restore("in", "--overwrite")
    assert code == 2 and "restored the next time; choose another --out" in sentence(err)
    assert contents(photos) == before


def test_frames_of_a_file_in_a_folder_are_counted(restore, photos, tmp_path):
    from PIL import Image

    frames = [Image.new("RGB", (6, 4), (90 * k, 40, 20)) for k in range(3)]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    assert "10 of 11 restored, 1 failed" in restore()[2]
    assert {f"moving-000{k}.png" for k in (1, 2, 3)} < contents(tmp_path / "out").keys()
    assert "10 were done before" in restore()[2]


def test_killed_at_random_moments_it_ends_with_the_same_bytes(photos, prior_folder, tmp_path):
    out = tmp_path / "out"
    arguments = ("restore", photos, "--task", "sr", "--scale", "2", "--prior", prior_folder, "--together", "3")
    steps = ("--steps", "25")
    finish(start(command, *arguments, *steps, "--out", tmp_path / "whole"))
    moments = random.Random(0)
    for _ in range(3):
        before = len(list(out.glob("*.png")))
        run = start(command, *arguments, *steps, "--out", out)
        wait_for(lambda: len(list(out.glob("*.png"))) > before)  # noqa: B023
        time.sleep(moments.uniform(0, 0.03))
        run.kill()
        assert finish(run) == [-signal.SIGKILL]
    assert finish(start(command, *arguments, *steps, "--out", out)) == [1]  # the words
    assert contents(out) == contents(tmp_path / "whole")
    assert len(contents(out)) == 7


def test_sigterm_ends_with_143_and_a_manifest_of_what_is_finished(photos, prior_folder, tmp_path, capfd):
    out = tmp_path / "out"
    arguments = ("restore", photos, "--task", "sr", "--prior", prior_folder, "--steps", "80", "--together", "1")
    run = start(command, *arguments, "--out", out)
    wait_for(lambda: list(out.glob("*.png")))
    run.terminate()
    assert finish(run) == [143]
    assert "what is finished is kept, start the same command again" in sentence(capfd.readouterr().err)
    assert {line["out"] for line in lines(out)} == contents(out).keys()
    assert 0 < len(contents(out)) < 7


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_file_is_in_the_share_of_one_process(tmp_path, ranks):
    from deqir.manifest import open_manifest

    files = [tmp_path / f"{k}.png" for k in range(100)]
    manifest = open_manifest(tmp_path, {})
    shares = [Pipeline(None, manifest, share=(rank, ranks)).blocks(files) for rank in range(ranks)]
    assert sorted(file for share in shares for block in share for file, _ in block) == sorted(files)
    sizes = [sum(map(len, share)) for share in shares]
    assert max(sizes) - min(sizes) <= 4
    whole = Pipeline(None, manifest).blocks(files)
    assert all(block in whole for share in shares for block in share)


def test_noise_is_drawn_twice_at_most_however_often_it_is_replayed(monkeypatch):
    noise = SeededNoise((1, 2, 2), [0, 5], 6, torch.device("cpu"), torch.float64)
    drawn = []
    draw = SeededNoise._draw
    monkeypatch.setattr(SeededNoise, "_draw", lambda self, what: drawn.append(what) or draw(self, what))
    first = [noise[step] for step in range(6)]
    assert drawn == [str(step) for step in range(6)] and noise._all is None
    for _ in range(5):
        for step in range(6):
            assert torch.equal(noise[step], first[step])
    assert len(drawn) == 12
    assert torch.equal(noise[1:3], torch.stack(first[1:3]))


def test_together_is_at_least_one(restore):
    code, _, err = restore("out", "--together", "0")
    assert code == 2 and "together is 0; choose at least 1" in sentence(err)
