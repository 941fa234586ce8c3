"""What the command line says about files and names that do not serve: once, in one sentence, before it is too late."""

import os
from inspect import signature
from pathlib import Path
from typing import get_args

import pytest
import torch

from conftest import sentence
from deqir.cli import app
from deqir.errors import ImageReadError, OptionError, OutputError, ShapeError
from deqir.images import find_images, write_image
from deqir.observations import read_observation
from deqir.records import failure


def forbid(monkeypatch, path):
    """Let nobody read ``path``, not even the user that may read everything."""
    opened, scanned, allowed = Path.open, os.scandir, os.access

    def refuse(file, otherwise, *arguments, **keywords):
        if Path(file) == path:
            raise PermissionError(13, "Permission denied", str(file))
        return otherwise(file, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", lambda file, *rest, **named: refuse(file, opened, *rest, **named))
    monkeypatch.setattr(os, "scandir", lambda folder=".": refuse(folder, scanned))
    monkeypatch.setattr(os, "access", lambda file, mode, **named: Path(file) != path and allowed(file, mode, **named))


def test_a_file_that_may_not_be_read_does_not_stop_the_others(deqir, photo, tmp_path, monkeypatch):
    secret = tmp_path / "secret.png"
    write_image(secret, torch.rand(3, 4, 4))
    forbid(monkeypatch, secret)
    code, _, err = deqir("restore", secret, photo, "--task", "sr", "--out", tmp_path / "o")
    assert code == 1 and "1 of 2 restored, 1 failed" in err
    assert sentence(err) == f"deqir: {secret} may not be read (permission denied); change its permissions"


def test_no_command_lets_the_parser_judge_files():
    parts = [
        part for made in app.registered_commands for part in signature(made.callback, eval_str=True).parameters.values()
    ]
    paths = [part.annotation for part in parts if "Path" in str(get_args(part.annotation)[:1])]
    assert len(paths) > 20
    assert not any(kind.__metadata__[0].readable for kind in paths)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    forbid(monkeypatch, tmp_path / "in")
    with pytest.raises(ImageReadError, match=r"folder .*in cannot be read \(Permission denied\); change its perm"):
        find_images(tmp_path / "in")


def test_an_observation_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "y.safetensors").write_bytes(b"1")
    monkeypatch.setattr("safetensors.torch.load_file", refuse)
    with pytest.raises(ImageReadError, match="may not be read"):
        read_observation(tmp_path / "y.safetensors")


@pytest.mark.parametrize("arguments", [["--out", ""], ["--out="], ["-o", ""]])
def test_an_empty_name_is_refused(deqir, photo, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    code, _, err = deqir("restore", photo, "--task", "sr", *arguments)
    assert code == 2 and "o" in sentence(err) and "is empty; give a value" in sentence(err)
    code, _, err = deqir("restore", "", "--task", "sr", "--out", tmp_path / "o")
    assert code == 2 and sentence(err) == "deqir: one of the names is empty; give a value"
    assert sorted(tmp_path.iterdir()) == before


def test_a_sentence_that_does_not_name_its_file_gets_the_name():
    file = Path("in/1.png")
    assert failure(file, OptionError("no task is given"))["error"] == "in/1.png: no task is given"
    assert failure(file, ShapeError("in/11.png is 3 x 4"))["error"] == "in/1.png: in/11.png is 3 x 4"
    assert failure(file, ImageReadError("in/1.png is empty"))["error"] == "in/1.png is empty"
    assert failure(file, ValueError("oh"))["error"].startswith("in/1.png: ValueError: oh; please report this")


def test_a_file_that_carries_its_task_or_noise_needs_no_word(deqir, photo, tmp_path):
    """One of several is enough to begin; the others fail in their turn, by name."""
    made = tmp_path / "noisy.safetensors"
    assert deqir("degrade", photo, "--task", "denoise", "--noise", "0.1", "--out", made)[0] == 0
    code, _, err = deqir("restore", made, photo, "--out", tmp_path / "o")
    assert code == 1 and "1 of 2 restored" in err
    assert f"{photo}: no task is given" in sentence(err)
    assert deqir("restore", made, "--task", "denoise", "--out", tmp_path / "again")[0] == 0
    code, _, err = deqir("restore", tmp_path / "missing.png", "--out", tmp_path / "o")
    assert code == 1 and "does not exist" in sentence(err)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("photo.png", "is one of the photos"),
        ("o/photo.png", "is named like an image"),
        ("folder", "is a folder; name a file in it"),
        ("o/manifest.jsonl", "is the manifest's name"),
    ],
)
def test_records_replace_neither_photos_nor_results(deqir, photo, tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    before = photo.read_bytes()
    arguments = ("--task", "sr", "--out", tmp_path / "o", "--stats", tmp_path / name, "--overwrite")
    for photos in ((photo,), (photo, tmp_path / "folder")):
        code, _, err = deqir("restore", *photos, *arguments)
        assert code == 2 and message in sentence(err)
    assert photo.read_bytes() == before and not (tmp_path / "o").exists()


def test_results_do_not_go_where_they_would_be_restored_again(deqir, photo, tmp_path):
    (tmp_path / "in").mkdir()
    photo.rename(tmp_path / "in" / "photo.png")
    inside = ("restore", tmp_path / "in", "--task", "sr", "--out", tmp_path / "in" / "sub")
    code, _, err = deqir(*inside, "--recursive")
    assert code == 2 and "choose another --out" in sentence(err)
    assert deqir(*inside)[0] == 0


def test_the_count_is_said_even_where_the_records_cannot_be_written(deqir, photo, tmp_path, monkeypatch):
    def full(*arguments):
        raise OutputError("s.json could not be written (No space left on device)")

    (tmp_path / "words.png").write_text("not a picture")
    monkeypatch.setattr("deqir.outputs.write_records", full)
    for photos, counts in (((photo, tmp_path / "words.png"), "1 of 2"), ((tmp_path,), "1 of 2")):
        arguments = ("--task", "sr", "--out", tmp_path / "o", "--stats", tmp_path / "s.json", "--overwrite")
        code, _, err = deqir("restore", *photos, *arguments)
        assert code == 1 and f"{counts} restored, 1 failed" in err
        assert err.splitlines()[-1] == "deqir: s.json could not be written (No space left on device)"


def test_a_folder_that_ends_early_says_how_far_it_came(deqir, photo, tmp_path, monkeypatch):
    def full(manifest, *arguments):
        raise OutputError("manifest.jsonl cannot be written (No space left on device); free space and run again")

    monkeypatch.setattr("deqir.manifest.Manifest._append", full)
    code, _, err = deqir("restore", tmp_path, "--task", "sr", "--out", tmp_path / "o")
    assert code == 1 and "ended after 0 of 1: 0 restored, 0 failed" in err
    assert "manifest.jsonl cannot be written" in sentence(err)


def test_observations_in_a_folder_are_restored_too(deqir, photo, tmp_path):
    for name in ("a.png", "b.safetensors"):
        (tmp_path / "in").mkdir(exist_ok=True)
        assert deqir("degrade", photo, "--task", "sr", "--scale", "2", "--out", tmp_path / "in" / name)[0] == 0
    code, _, err = deqir("restore", tmp_path / "in", "--out", tmp_path / "o")
    assert code == 0 and "2 of 2 restored" in err
    assert {path.name for path in (tmp_path / "o").glob("*.png")} == {"a.png", "b.png"}


def test_subfolders_are_looked_into_where_asked_for_and_the_run_goes_on(deqir, photo, tmp_path):
    for name in ("in/photo.png", "in/one/photo.png", "in/two/photo.png", "in/two/other.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photo.read_bytes())
    arguments = ("restore", tmp_path / "in", "--task", "sr", "--scale", "2", "--recursive", "--out", tmp_path / "o")
    code, _, err = deqir(*arguments)
    assert code == 0 and "4 of 4 restored" in err
    assert len(list((tmp_path / "o").glob("*.png"))) == 4
    (tmp_path / "o" / "other.png").unlink()
    assert "1 of 4 restored, 0 failed, 3 were done before" in deqir(*arguments)[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "old-photo"], "to simulate it give --mask scratches, or a file"),
        (["--task", "auto"], "makes nothing worse; name another --task"),
        (["--task", "inpaint", "--mask", "nowhere.png"], "'nowhere.png' is not a file"),
    ],
)
def test_degrade_refuses_what_makes_no_observation(deqir, photo, tmp_path, arguments, message):
    code, _, err = deqir("degrade", photo, *arguments, "--out", tmp_path / "y.png")
    assert code == 2 and message in sentence(err)


def test_degrade_says_that_it_takes_the_first_of_several_pages(deqir, tmp_path):
    from PIL import Image

    pages = [Image.new("RGB", (6, 4), (90 * k, 40, 20)) for k in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    code, _, err = deqir("degrade", tmp_path / "pages.tif", "--task", "sr", "--scale", "2", "--out", tmp_path / "y.png")
    assert code == 0 and "pages.tif has 3 frames or pages; the first one is degraded" in sentence(err)


@pytest.mark.parametrize("named", [(), ("--task", "inpaint")])
def test_a_mask_that_may_not_be_read_is_a_usage_error(deqir, photo, tmp_path, monkeypatch, named):
    """With a task it is read at once; without one the files may bring it, and a folder's manifest takes its hash."""
    source, mask = tmp_path / "in", tmp_path / "mask.png"
    source.mkdir()
    assert deqir("degrade", photo, "--task", "inpaint", "--out", source / "y.png")[0] == 0
    write_image(mask, torch.ones(1, 19, 21))
    forbid(monkeypatch, mask)
    code, _, err = deqir("restore", source, "--mask", mask, *named, "--out", tmp_path / "o")
    assert code == 2 and "mask.png" in sentence(err) and "change its permissions" in sentence(err)
    assert not (tmp_path / "o").exists()
