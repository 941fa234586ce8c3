"""The manifest of a folder: what counts as done, what may be replaced, and what a killed process leaves."""

import json
import os

import pytest

from deqir.errors import OutputError
from deqir.manifest import content_hash, identity, open_manifest, read_records

SETTINGS = {"steps": 3, "spacing": (999, 0)}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.png"
    path.write_bytes(b"photo")
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def publish(folder, source, name="a.png", data=b"result", settings=SETTINGS, **keywords):
    manifest = open_manifest(folder, settings, **keywords)
    return manifest.publish(folder / name, data, identity(source), {"file": str(source), "status": "converged"})


def is_done(folder, source, name="a.png"):
    return open_manifest(folder, SETTINGS).is_done(folder / name, source)


def test_a_published_result_is_done_and_its_line_tells_all(folder, source):
    assert not is_done(folder, source)
    line = publish(folder, source)
    assert (folder / "a.png").read_bytes() == b"result"
    assert is_done(folder, source)
    assert json.loads((folder / "manifest.jsonl").read_text()) == json.loads(json.dumps(line))
    assert line["input"]["bytes"] == 5 and line["settings"] == {"steps": 3, "spacing": [999, 0]}
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "manifest.jsonl"]


@pytest.mark.parametrize("change", ["input", "touched", "gone", "other bytes"])
def test_what_has_changed_is_not_done(folder, source, change):
    publish(folder, source)
    if change == "input":
        source.write_bytes(b"another photo")
    if change == "touched":
        os.utime(source, ns=(0, 12345))
    if change == "gone":
        (folder / "a.png").unlink()
    if change == "other bytes":
        (folder / "a.png").write_bytes(b"cut o")
    assert not is_done(folder, source)


def test_results_of_other_settings_are_refused_by_what_differs(folder, source):
    publish(folder, source)
    with pytest.raises(OutputError, match=r"steps was 3, is 4.*add --overwrite") as caught:
        open_manifest(folder, {**SETTINGS, "steps": 4})
    assert "spacing" not in str(caught.value)
    (folder / "a.png").unlink()
    assert open_manifest(folder, {**SETTINGS, "steps": 4}).existing.keys() == {"manifest.jsonl"}


def test_overwriting_begins_anew_in_the_manifests_of_this_rank(folder, source):
    for rank in range(4):
        publish(folder, source, f"{rank}.png", rank=rank, ranks=4)
    manifest = open_manifest(folder, {"steps": 4}, overwrite=True, rank=1, ranks=2)
    assert not manifest.is_done(folder / "1.png", source)
    left = sorted(path.name for path in folder.glob("manifest*"))
    assert left == ["manifest-2.jsonl", "manifest.jsonl"]


def test_every_rank_knows_what_all_have_done(folder, source):
    publish(folder, source, "a.png", rank=0, ranks=2)
    publish(folder, source, "b.png", rank=1, ranks=2)
    assert is_done(folder, source, "a.png") and is_done(folder, source, "b.png")


def test_only_own_results_are_replaced(folder, source, tmp_path):
    (folder / "foreign.png").write_bytes(b"mine")
    publish(folder, source)
    other = tmp_path / "other.png"
    other.write_bytes(b"other photo")
    manifest = open_manifest(folder, SETTINGS)
    manifest.refuse_foreign(folder / "a.png", source)
    manifest.refuse_foreign(folder / "new.png", source)
    for name, made_of in (("foreign.png", source), ("a.png", other)):
        with pytest.raises(OutputError, match="exists already"):
            manifest.refuse_foreign(folder / name, made_of)
        open_manifest(folder, SETTINGS, overwrite=True).refuse_foreign(folder / name, made_of)


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_line_that_was_cut_off_is_made_again_and_the_next_one_is_whole(folder, source, kept):
    publish(folder, source)
    path = folder / "manifest.jsonl"
    path.write_bytes(path.read_bytes().rstrip()[:kept])
    assert not is_done(folder, source)
    publish(folder, source, "b.png")
    assert read_records(folder).keys() == {"b.png"}


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "b/../a.png", "", ".", "..", 3, None, ["a.png"]])
def test_a_line_tells_of_files_in_its_own_folder_alone(folder, source, name):
    line = publish(folder, source)
    path = folder / "manifest.jsonl"
    path.write_text(json.dumps({**line, "out": name}) + "\n")
    assert read_records(folder) == {}
    assert not is_done(folder, source)


def test_killed_before_the_result_appears_it_is_not_done_and_nothing_stays(folder, source, monkeypatch):
    publish(folder, source, data=b"old")

    def killed(*names):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", killed)
        patched.setattr(
            "pathlib.Path.unlink", lambda path, missing_ok: None if path.suffix == ".part" else os.unlink(path)
        )
        with pytest.raises(KeyboardInterrupt):
            publish(folder, source, data=b"new")
    assert len(list(folder.glob(".*.part"))) == 1
    assert not is_done(folder, source)
    publish(folder, source, data=b"new")
    assert is_done(folder, source)
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "manifest.jsonl"]


def test_a_failure_is_noted_but_does_not_hide_a_success(folder, source):
    manifest = open_manifest(folder, SETTINGS)
    manifest.note_failure(folder / "a.png", {"file": str(source), "status": "failed", "error": "no"})
    assert not is_done(folder, source)
    assert read_records(folder)["a.png"]["error"] == "no"
    publish(folder, source)
    manifest.note_failure(folder / "a.png", {"file": str(source), "status": "failed", "error": "no"})
    assert is_done(folder, source)


def test_a_process_that_may_not_write_writes_nothing(folder, source):
    publish(folder, source, writable=False)
    open_manifest(folder, SETTINGS, writable=False).note_failure(folder / "a.png", {"error": "no"})
    assert list(folder.iterdir()) == []


def test_the_hash_of_contents_sees_names_and_bytes(tmp_path):
    hashes = []
    for name, content in (("a", b"1"), ("a", b"2"), ("b", b"2")):
        folder = tmp_path / str(len(hashes))
        folder.mkdir()
        (folder / name).write_bytes(content)
        hashes.append(content_hash(folder))
        hashes.append(content_hash(folder / name))
    assert len(set(hashes)) == 5 and hashes[3] == hashes[5]


def test_a_line_that_a_full_disk_cut_short_does_not_spoil_the_next(folder, source):
    manifest = open_manifest(folder, SETTINGS)
    about = {"file": str(source), "status": "converged"}
    manifest.publish(folder / "a.png", b"one", identity(source), about)
    with manifest.path.open("ab") as file:
        file.write(b'{"file": "b.png", "sta')  # what a write that fails in the middle leaves
    manifest.publish(folder / "c.png", b"three", identity(source), about)
    assert sorted(read_records(folder)) == ["a.png", "c.png"]
    assert len(manifest.path.read_bytes().splitlines()) == 3
