"""The web page: what a visitor may ask for, and the page itself in a real browser and through Gradio's client."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deqir.errors import ImageReadError, OptionError
from deqir.images import read_image, write_image
from deqir.initialization import Iteration

pytest.importorskip("gradio", reason="the web page needs the extra deqir[ui]")

from deqir.report import Recorder
from deqir.results import Progress
from deqir.webui import looks, serve
from deqir.webui.controls import TASK_NAMES
from deqir.webui.photos import covered, painted_mask, read_photo, reduced, stage, stem_of
from deqir.webui.sessions import Sessions
from deqir.webui.settings import Limits, Settings
from deqir.webui.solve import Solve, StoppedError
from deqir.webui.trail import Trail
from deqir.webui.workbench import Workbench

LIMITS = Limits(side=128, steps=10, file_bytes=100_000, photo_pixels=10_000)
PRIORS = ("builtin", "other")
SCREENSHOTS = os.environ.get("DEQIR_SCREENSHOTS")  # the folder of the documentation's pictures, to refresh them
LARGEST_PICTURE = 150_000  # bytes
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 11}, "steps is 11; choose from 1 to 10"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 3.5}, "the setting steps is 3.5"),
        ({"steps": True}, "the setting steps is True"),
        ({"side": 129}, "side is 129; choose from 1 to 128"),
        ({"prior": "/etc"}, "prior is '/etc'; choose one of builtin, other"),
        ({"solver": "magic"}, "solver is 'magic'; choose one of auto"),
        ({"spacing": "odd"}, "spacing is 'odd'"),
        ([], "the settings are []; give an object"),
        ({"seed": -1}, "seed is -1; choose from 0"),
        ({"colour": 1}, "the setting 'colour' is unknown"),
        ({"noise": -1.0}, "the noise level is -1.0"),
        ({"task": "sing"}, "task is 'sing'"),
        ({"task": 3}, "task is 3"),
        ({"task": {"scale": 2}}, "give its name"),
        ({"task": {"name": "inpaint", "mask": "/etc/passwd"}}, "mask is '/etc/passwd'; choose one of random"),
        ({"task": {"name": "deblur", "blur": "/etc/passwd"}}, "blur is '/etc/passwd'; choose one of gaussian"),
        ({"task": {"name": "sr", "scale": 0}}, "scale"),
        ({"task": "cs"}, "no compressed-sensing observation"),
        ({"task": "denoise"}, "task denoise needs the noise level"),
        ({"noise": "some"}, "the noise level is 'some'"),
        ({"noise": "auto", "simulate": True}, "give a number instead of auto"),
        ({"tile": 4}, "tile is 4; choose auto, none or a whole number"),
        ({"tile": "some"}, "tile is 'some'"),
        ({"tile_overlap": -1}, "tile_overlap is -1"),
        ({"tile_overlap": True}, "the setting tile_overlap is True"),
        ({"travel_length": 0}, "travel_length is 0"),
        ({"average": -0.1}, "average is -0.1"),
        ({"steps": 6, "travel_repeat": 2}, "6 steps, walked 2 times, are more than 10"),
        ({"steps": 6, "task": "old-photo"}, "6 steps, walked 2 times, are more than 10"),
        ({"reference": "/etc/passwd"}, "reference is '/etc/passwd'; choose one of colours, picture"),
        ({"iterations": 31}, "iterations is 31; choose from 1 to 30"),
        ({"task": {"name": "inpaint", "mask": "detect"}}, "mask is 'detect'; choose one of random"),
        ({"task": {"name": "old-photo", "mask": "/etc/passwd"}, "steps": 5}, "mask is '/etc/passwd'"),
        ({"task": {"name": "sr", "scale": 600}, "side": 64}, "scale is 600, more than the 64 pixels"),
        ({"task": {"name": "old-photo", "scale": 65, "mask": "box"}, "side": 64, "steps": 5}, "scale is 65, more than"),
        ({"task": {"name": "inpaint", "mask_seed": 10**30}}, "the setting mask_seed is no number in reach"),
        ({"task": {"name": "inpaint", "mask_seed": -1}}, "mask_seed is -1; choose from 0"),
        ({"noise": 10**400}, "the setting noise is no number in reach"),
        ({"noise": float("inf")}, "the setting noise is no number in reach"),
        ({"tolerance": 10**5000}, "the setting tolerance is no number in reach"),
        ({"eta": float("nan")}, "the setting eta is no number in reach"),
        ({"tile": 10**30}, "the setting tile is no number in reach"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(given, message):
    with pytest.raises(OptionError, match=re.escape(message)) as raised:
        Settings.checked(given, LIMITS, PRIORS)
    assert "\n" not in str(raised.value)


def test_settings_survive_json():
    given = {"task": {"name": "inpaint", "mask": "brush"}, "steps": 7, "noise": 0.1, "simulate": True, "seed": 3}
    settings = Settings.checked({**given, "side": 64}, LIMITS, PRIORS)
    assert Settings.checked(json.loads(json.dumps(settings.to_json())), LIMITS, PRIORS) == settings
    assert settings.has_brush and settings.options("cpu")["steps"] == 7
    assert "travel_repeat" not in settings.options("cpu")  # the task's own
    tiled = {
        "tile": "none",
        "tile_overlap": 4,
        "travel_length": 2,
        "travel_repeat": 3,
        "steps": 3,
        "noise": "auto",
        "average": 0.05,
    }
    options = Settings.checked(tiled, LIMITS, PRIORS).options("cpu")
    names = ("tile", "tile_overlap", "travel_length", "travel_repeat", "average")
    assert [options[name] for name in names] == [None, 4, 2, 3, 0.05]
    with pytest.raises(OptionError, match="the limit steps is 0"):
        Limits(steps=0)


def test_the_result_has_the_side_asked_for():
    small = Settings.checked({"task": {"name": "sr", "scale": 3}, "side": 60}, LIMITS, PRIORS)
    assert small.photo_side == 20
    assert Settings.checked({**small.to_json(), "simulate": True}, LIMITS, PRIORS).photo_side == 60
    old = Settings.checked({"task": {"name": "old-photo", "scale": 2}, "side": 60, "steps": 5}, LIMITS, PRIORS)
    assert old.photo_side == 30
    assert Settings.checked({"task": "old-photo", "side": 60, "steps": 5}, LIMITS, PRIORS).photo_side == 60
    assert reduced(torch.rand(3, 40, 90), 45).shape == (3, 20, 45)
    photo = torch.rand(3, 8, 4)
    assert reduced(photo, 8) is photo
    torch.testing.assert_close(reduced(photo, 4), torch.nn.functional.avg_pool2d(photo, 2))


def test_bad_uploads_are_refused_without_the_servers_paths(tmp_path):
    with pytest.raises(OptionError, match="There is no photo yet"):
        read_photo(None, LIMITS)
    text = tmp_path / "text.png"
    text.write_text("no image")
    large = tmp_path / "large.png"
    write_image(large, torch.rand(1, 101, 100))
    cases = [(text, "text.png is not a readable"), (large, "more than the 10000"), (tmp_path / "gone.png", "upload it")]
    for file, message in cases:
        with pytest.raises(ImageReadError, match=message) as raised:
            read_photo(str(file), LIMITS)
        assert str(tmp_path) not in str(raised.value)
    large.write_bytes(bytes(100_001))
    with pytest.raises(OptionError, match=r"large.png has 0 MB, more than the 0.1 MB"):
        read_photo(str(large), LIMITS)


def test_what_is_painted_is_filled():
    layer = np.zeros((4, 6, 4), np.uint8)
    layer[1:3, 2:4] = 255
    mask = painted_mask({"layers": [layer], "background": None}, (4, 6))
    assert mask.shape == (1, 4, 6) and mask.sum() == 20 and mask[0, 1:3, 2:4].sum() == 0
    assert painted_mask({"layers": [layer]}, (2, 3)).tolist() == [[[1, 0, 1], [1, 0, 1]]]  # touched is filled
    assert painted_mask(None, (2, 3)).all()


def test_a_painted_mask_becomes_the_task(tmp_path):
    settings = Settings.checked({"task": {"name": "inpaint", "mask": "brush"}}, Limits(), PRIORS)
    photo, mask = torch.rand(3, 4, 6), torch.ones(1, 4, 6)
    with pytest.raises(OptionError, match="Nothing is painted"):
        stage(photo, settings, mask, tmp_path)
    with pytest.raises(OptionError, match="whole photo is painted over"):
        stage(photo, settings, torch.zeros(1, 4, 6), tmp_path)
    mask[0, 1, 2] = 0
    file, task = stage(photo, settings, mask, tmp_path)
    torch.testing.assert_close(read_image(file), photo, rtol=0, atol=1e-5)
    assert torch.equal(read_image(task["mask"]), mask)


def test_a_session_takes_its_files_along(tmp_path):
    sessions = Sessions(tmp_path)
    sessions.enter("a")
    sessions.enter("b")
    first, folder = sessions.begin("../a")  # a name never leaves the root
    assert folder.is_relative_to(tmp_path / "sessions" / "a")
    stop, again = sessions.begin("a")
    assert not folder.exists() and again.exists() and stop is not first
    shown = [Path(sessions.picture("a", "preview", np.zeros((2, 2, 3), np.uint8))) for _ in range(5)]
    assert [file.exists() for file in shown] == [False, False, True, True, True]
    sessions.stop("b")
    assert not stop.is_set()
    sessions.leave("a")
    sessions.leave("../a")
    assert stop.is_set() and list(tmp_path.rglob("*.png")) == [] and not again.exists()
    assert sessions.picture("a", "preview", np.zeros((2, 2, 3), np.uint8)) is None
    assert not (tmp_path / "sessions" / "a").exists()


def test_an_upload_goes_with_the_last_visitor_who_uses_it(tmp_path):
    sessions, uploads = Sessions(tmp_path), tmp_path / "uploads"
    own, shared = (uploads / name / "photo.png" for name in ("own", "shared"))
    left, arriving = uploads / "tmpleft", uploads / "tmparriving"
    for folder in (own.parent, shared.parent):
        folder.mkdir(parents=True)
    for file in (own, shared, left, arriving, tmp_path / "bundled.png"):
        file.touch()
    os.utime(left, (0, 0))
    sessions.use("a", str(own), str(shared), None, str(tmp_path / "bundled.png"))
    assert not left.exists() and arriving.exists()
    sessions.use("b", str(shared))
    sessions.leave("a")
    assert not own.parent.exists() and shared.exists()
    sessions.leave("b")
    assert not shared.parent.exists() and (tmp_path / "bundled.png").exists()


@pytest.fixture
def workbench(prior_folder, tmp_path):
    return Workbench(Limits(), {"tiny": str(prior_folder)}, "cpu", Sessions(tmp_path))


PREVIEWS = {
    "sr": ((3, 9, 10), {"scale": 2}),
    "inpaint": ((3, 19, 21), {"mask": "random"}),
    "deblur": ((3, 19, 21), {"blur": "motion"}),
    "denoise": ((3, 19, 21), {}),
    "colorize": ((1, 19, 21), {}),
    "cs": ((3, 19, 21), {}),
}


@pytest.mark.parametrize("task", PREVIEWS)
def test_the_preview_is_the_observation(workbench, photo, tmp_path, task):
    shape, own = PREVIEWS[task]
    given = {"task": {"name": task, **own}, "simulate": True, "noise": 0.1 if task == "denoise" else 0.0}
    if task == "sr":  # of 18 x 20 pixels, which two divides
        write_image(photo, read_image(photo)[:, :18, :20])
    preview = workbench.preview(str(photo), workbench.settings(given))
    image = preview.image
    assert image.shape == shape and preview.size == read_image(photo).shape[1:]
    assert image.min() >= 0 and image.max() <= 1
    assert image.shape != read_image(photo).shape or (image - read_image(photo)).abs().max() > 0.05
    assert list(tmp_path.rglob("*")) == [photo]


def test_a_restoration_leaves_everything_to_download(workbench, photo):
    settings = workbench.settings({"steps": 3, "solver": "picard", "simulate": True, "side": 16})
    *moments, outcome = workbench.restore(str(photo), settings, None, "visitor")
    assert moments[-1].progress.done == 3
    saved = json.loads(outcome.settings.read_text())
    assert workbench.settings(saved["settings"]) == settings
    assert saved["result"]["psnr"] > 0 and str(photo.parent) not in outcome.settings.read_text()
    assert read_image(outcome.before).shape == read_image(outcome.after).shape == (3, 14, 16)
    assert "deqir report" in outcome.report.read_text()
    names = {outcome.result.name, outcome.settings.name, outcome.report.name}
    assert names == {f"photo-{ending}" for ending in ("restored.png", "settings.json", "report.html")}
    assert outcome.mask is None and saved["photo"] == "photo.png"


def test_a_drawn_mask_is_kept_and_repeats_the_run_on_the_command_line(workbench, photo, tmp_path, prior_folder):
    mask = torch.ones(1, 19, 21)
    mask[:, 4:9, 5:12] = 0
    asked = {"task": {"name": "inpaint", "mask": "brush"}, "steps": 3, "solver": "serial"}
    *_, outcome = workbench.restore(str(photo), workbench.settings(asked), mask, "visitor")
    assert torch.equal(read_image(outcome.mask), mask)
    saved = json.loads(outcome.settings.read_text())
    assert saved["mask"] == outcome.mask.name == "photo-mask.png"
    command = [sys.executable, "-m", "deqir", "restore", photo, "--config", outcome.settings, "--mask", outcome.mask]
    options = ["--prior", prior_folder, "--device", "cpu", "--out", tmp_path / "again"]
    subprocess.run([*map(str, [*command, *options])], check=True, capture_output=True)
    assert torch.equal(read_image(tmp_path / "again" / "photo.png"), read_image(outcome.result))


def test_a_photo_that_is_reduced_first_is_said_to_be(workbench, tmp_path):
    write_image(tmp_path / "large.png", torch.rand(3, 120, 90))
    settings = workbench.settings({"task": {"name": "sr", "scale": 4}, "side": 80})
    preview = workbench.preview(str(tmp_path / "large.png"), settings)
    text = looks.ready(preview, 128)
    assert "Ready: the result will have 60 x 80 pixels. The photo (90 x 120) is first reduced to 15 x 20." in text
    assert "The result is smaller than the photo. Raise" in text
    assert "This page makes none larger" in looks.ready(preview, 80)
    whole = workbench.settings({"task": {"name": "sr", "scale": 2}, "side": 240})
    text = looks.ready(workbench.preview(str(tmp_path / "large.png"), whole), 1024)
    assert "reduced" not in text and "smaller" not in text


def test_the_page_speaks_in_sentences_of_its_own_words():
    assert "<p>There is" in looks.said("there is nothing")
    assert "<p>bad.png is" in looks.said("bad.png is not readable")
    assert "blur_width" not in looks.said("left alone; give noise or blur_width to insist; or choose another task")


def test_a_photo_of_which_nothing_is_known_is_not_ready(workbench, tmp_path):
    write_image(tmp_path / "grey.png", torch.full((3, 32, 32), 0.5))
    preview = workbench.preview(str(tmp_path / "grey.png"), workbench.settings({"task": "auto", "noise": "auto"}))
    assert preview.leave_alone and "Nothing to restore" in looks.ready(preview, 1024)


@pytest.mark.parametrize(
    ("path", "stem"), [(None, "photo"), ("/a/my photo.v2.jpg", "my-photo-v2"), ("..png", "photo"), ("é_1.png", "é_1")]
)
def test_downloads_are_named_after_the_photo(path, stem):
    assert stem_of(path) == stem


@pytest.fixture
def scratched(tmp_path):
    """A grey gradient with a bright scratch."""
    image = torch.linspace(0.2, 0.6, 64).expand(1, 48, 64).clone()
    image[:, :, 30:32] = 1
    write_image(tmp_path / "scratched.png", image)
    return tmp_path / "scratched.png"


def test_damage_is_shown_and_can_be_edited(workbench, scratched):
    preview = workbench.preview(str(scratched), workbench.settings({"task": "old-photo", "steps": 3}))
    pink = (preview.image[0] - preview.image[1]) > 0.5
    assert pink[:, 30:32].float().mean() > 0.9 and pink[:, :24].sum() == 0
    assert preview.size == (48, 64) and "damaged (detected)" in preview.found
    larger = {"task": {"name": "old-photo", "mask": "brush", "scale": 2}, "steps": 3, "side": 64}
    assert workbench.preview(str(scratched), workbench.settings(larger)).size == (48, 64)
    image, mask = workbench.damage(str(scratched), workbench.settings({"task": "old-photo", "steps": 3}))
    assert image.shape == (1, 48, 64) and torch.equal(mask[0] == 0, pink)
    editor = covered(image, mask)
    assert torch.equal(painted_mask(editor, (48, 64)), mask)
    assert (editor["composite"][pink.numpy()] == [224, 28, 115]).all()
    assert (editor["composite"] == editor["background"])[~pink.numpy()].all()


def test_an_old_photo_is_restored_where_it_is_damaged(workbench, scratched):
    asked = {"task": {"name": "old-photo", "fading": "none"}, "steps": 6, "noise": 0.0, "solver": "serial"}
    *_, outcome = workbench.restore(str(scratched), workbench.settings(asked), None, "visitor")
    assert outcome.run.settings["findings"]["mask_detected"]
    assert outcome.run.settings["travel_repeat"] == 2
    assert str(scratched.parent) not in outcome.settings.read_text()
    painted = workbench.settings({**asked, "task": {**asked["task"], "mask": "brush"}})
    *_, outcome = workbench.restore(str(scratched), painted, None, "visitor")  # whole: nothing has to be painted
    assert outcome.run.settings["findings"]["mask_share"] == 0


def test_a_photo_in_which_nothing_is_wrong_is_left_alone(workbench, tmp_path):
    grey = tmp_path / "grey.png"
    write_image(grey, torch.full((3, 32, 32), 0.5))
    settings = workbench.settings({"task": "auto", "noise": 0.0, "steps": 3})
    for reference in (None, str(grey)):
        with pytest.raises(OptionError, match=r"left alone.*; or choose another task"):
            list(workbench.restore(str(grey), settings, None, "visitor", reference))


@pytest.mark.parametrize("take", ["colours", "picture"])
def test_a_reference_draws_the_result_towards_it(workbench, photo, tmp_path, take):
    write_image(tmp_path / "red.png", torch.tensor([0.9, 0.2, 0.1]).view(3, 1, 1).expand(3, 5, 9))
    settings = workbench.settings({
        "task": {"name": "inpaint", "mask": "box"}, "steps": 3, "solver": "serial", "eta": 0.5,
        "reference": take, "iterations": 4,
    })  # fmt: skip
    *_, plain = workbench.restore(str(photo), settings, None, "visitor")
    means = [read_image(plain.result).mean((1, 2))]
    *moments, outcome = workbench.restore(str(photo), settings, None, "visitor", str(tmp_path / "red.png"))
    means.append(read_image(outcome.result).mean((1, 2)))
    redness = [float(mean[0] - mean[2]) for mean in means]
    assert redness[1] > redness[0]
    assert isinstance(moments[0].progress, Iteration) or take == "colours"
    record = json.loads(outcome.settings.read_text())["result"]
    assert len(record["losses"]) == 4 and min(record["losses"]) < record["losses"][0]
    assert "then" in looks.finished(outcome.run)


def test_a_solve_hands_on_progress_and_what_comes_out():
    def work(watch):
        for number in range(3):
            watch(number)
            time.sleep(0.02)
        return "done"

    solve = Solve(work, threading.Event())
    seen = list(solve)
    assert seen and seen == sorted(set(seen)) and solve.outcome == "done"
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        list(Solve(work, stop))
    with pytest.raises(ZeroDivisionError):
        list(Solve(lambda watch: 1 / 0, threading.Event()))


def test_the_chart_is_drawn_while_the_solve_goes_on():
    recorder, trail = Recorder(), Trail()
    assert looks.chart(recorder, trail, 0.5) == ""
    recorder.residuals = [torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])]  # the second sweep is being written down
    recorder.counts = [(1, 2, 0.1)]
    assert "Heat map of 1 sweeps by 2 states; 1 states are final." in looks.chart(recorder, trail, 0.5)


def test_a_serial_chain_tells_its_steps_what_they_changed_and_the_time_left(monkeypatch):
    clock = iter([10.0, 12.0, 14.0])
    recorder, trail, seen = Recorder(), Trail(), []
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    for done, value in enumerate((0.0, 0.5, 0.6), 1):
        progress = Progress(done, done, 5, float("nan"), torch.full((1, 3, 4, 4), value), done)
        trail(progress)
        seen.append(looks.under_way(progress, trail))
    assert "Step 1 of 5." in seen[0] and "Step 3 of 5, about 4 s left." in seen[2]
    assert trail.changes == pytest.approx([127.5, 25.5])
    assert "Change of the image in steps 2 to 3 of 5; the last: 25.5" in looks.chart(recorder, trail, 0.5)


def test_who_stops_listening_stops_the_solve():
    reports, ended = [], threading.Event()

    def work(watch):
        try:
            while True:
                watch(0)
                reports.append(0)
                time.sleep(0.01)
        finally:
            ended.set()

    listening = iter(Solve(work, threading.Event()))
    next(listening)
    listening.close()
    assert ended.wait(5)


@pytest.fixture(scope="module")
def server(prior_folder, tmp_path_factory):
    """A real server with a tiny prior, (address, its temporary folders' parent, process)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parent = tmp_path_factory.mktemp("server")
    priors = ["--prior", str(prior_folder), "--prior", "builtin"]
    options = ["--port", str(port), *priors, "--device", "cpu", "--max-side", "128"]
    environment = {**os.environ, "TMPDIR": str(parent), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "deqir", "ui", *options, "--max-steps", "200", "--max-megabytes", "1"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        assert "deqir is at http://127.0.0.1" in line, process.stderr.read()
        try:
            yield line.split()[3], parent, process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def client(server):
    from gradio_client import Client

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_ANALYTICS_ENABLED", "False")  # no message to Gradio's makers
        client = Client(server[0], verbose=False, analytics_enabled=False)
        yield client
        client.close()


def call(client, photo, settings, mask=None, reference=None):
    from gradio_client import handle_file

    files = [None if file is None else handle_file(file) for file in (mask, reference)]
    result, record = client.predict(handle_file(photo), settings, *files, api_name="/restore")
    return read_image(result), record


QUICK = {"steps": 3, "solver": "picard", "side": 48, "task": {"name": "sr", "scale": 2}}


def test_the_api_restores_and_its_settings_repeat_it(client, photo):
    image, record = call(client, photo, QUICK)
    assert image.shape == (3, 38, 42)
    assert record["result"]["status"] == "converged" and record["result"]["sweeps"] <= 3
    again, _ = call(client, photo, record["settings"])
    assert torch.equal(again, image)


def test_the_api_takes_a_mask(client, photo, tmp_path):
    mask = torch.ones(1, 19, 21)
    mask[:, 4:9, 5:12] = 0
    write_image(tmp_path / "mask.png", mask)
    task = {"name": "inpaint", "mask": "brush"}
    image, record = call(client, photo, {**QUICK, "task": task}, tmp_path / "mask.png")
    truth = read_image(photo)
    kept = mask.bool().expand(3, -1, -1)
    torch.testing.assert_close(image[kept], truth[kept], rtol=0, atol=1 / 255)
    assert (image - truth)[~kept].abs().max() > 0.02
    assert record["result"]["task_settings"]["mask"] == "brush"


def test_the_api_takes_a_reference(client, photo):
    settings = {**QUICK, "iterations": 2, "reference": "picture", "solver": "serial"}
    _, record = call(client, photo, settings, reference=photo)
    assert len(record["result"]["losses"]) == 2


def test_the_api_says_in_one_sentence_what_is_wrong(client, photo, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(Exception, match=r"bad.png is not a readable PNG"):
        call(client, bad, QUICK)
    with pytest.raises(Exception, match="steps is 201; choose from 1 to 200"):
        call(client, photo, {**QUICK, "steps": 201})
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(1_100_000))
    with pytest.raises(Exception, match=r"(?i)size|413"):
        call(client, big, QUICK)


def test_the_server_itself_holds_what_a_program_asks_against_its_limits(client, photo, tmp_path):
    """The page's own controls do not matter here: the API is called with what no control offers."""
    bomb = tmp_path / "bomb.png"
    write_image(bomb, torch.zeros(1, 8, 8))
    data = bytearray(bomb.read_bytes())
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    bomb.write_bytes(data)
    with pytest.raises(Exception, match="30000 x 30000 pixels, more than the 60000000 allowed"):
        call(client, bomb, QUICK)
    painted = {**QUICK, "task": {"name": "inpaint", "mask": "brush"}}
    with pytest.raises(Exception, match="30000 x 30000 pixels"):
        call(client, photo, painted, bomb)
    for changed, message in (
        ({"side": 129}, "side is 129; choose from 1 to 128"),
        ({"prior": "/etc"}, "prior is '/etc'"),
        ({"task": {"name": "inpaint", "mask": str(photo)}}, "choose one of"),
        ({"task": {"name": "deblur", "blur": str(photo)}}, "choose one of"),
    ):
        with pytest.raises(Exception, match=message):
            call(client, photo, {**QUICK, **changed})
    assert call(client, photo, QUICK)[1]["result"]["status"] == "converged"


def test_several_visitors_wait_for_each_other(server, client, photo):
    from gradio_client import Client, handle_file

    with_second = Client(server[0], verbose=False, analytics_enabled=False)
    jobs = [
        visitor.submit(handle_file(photo), {**QUICK, "seed": seed}, None, None, api_name="/restore")
        for seed, visitor in enumerate((client, with_second))
    ]
    results = [job.result(timeout=60) for job in jobs]
    with_second.close()
    assert [record["settings"]["seed"] for _, record in results] == [0, 1]
    assert not torch.equal(read_image(results[0][0]), read_image(results[1][0]))


def test_only_restoring_is_public(client):
    assert list(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == ["/restore"]


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", None), ("203.0.113.1", 8000)])
def test_an_address_that_cannot_be_used_is_one_sentence(host, port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if port is None else port
        with pytest.raises(OptionError, match=f"{host}:{port} cannot be used .*; choose another --port or --host"):
            serve(host, port, {}, LIMITS, "cpu", print)
    with pytest.raises(OptionError, match="port is 70000; choose from 1 to 65535"):
        serve(host, 70_000, {}, LIMITS, "cpu", print)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="browser tests need Playwright (pip install playwright)"
    )
    if CHROMIUM is None:
        pytest.skip("browser tests need Debian's chromium (apt-get install chromium)")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, server):
    """The page, opened afresh; ``page.outside`` lists requests that left this machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(40_000)
    page.outside = []
    page.on("request", lambda request: None if is_local(request.url) else page.outside.append(request.url))
    page.goto(server[0])
    page.get_by_role("button", name="Restore", exact=True).wait_for()
    yield page
    context.close()


def is_local(url):
    return re.match(r"(https?|wss?)://127\.0\.0\.1[:/]|data:|blob:", url) is not None


def keep_picture(page, name, folder, tallest):
    """Take the picture ``name`` of the documentation, the upper ``tallest`` pixels; into DEQIR_SCREENSHOTS if given."""
    file = Path(SCREENSHOTS or folder) / f"{name}.jpg"
    page.wait_for_timeout(500)
    height = min(tallest, page.evaluate("document.documentElement.scrollHeight"))
    taken = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": height})
    picture = Image.open(BytesIO(taken)).convert("RGB").resize((960, round(0.75 * height)), Image.Resampling.LANCZOS)
    for quality in (85, 75, 65, 50):
        picture.save(file, quality=quality)
        if file.stat().st_size <= LARGEST_PICTURE:
            break
    assert file.stat().st_size <= LARGEST_PICTURE
    assert np.asarray(picture).std() > 10


def choose(page, label, option):
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def fill(page, label, value):
    box = page.get_by_label(label).first
    box.fill(str(value))
    box.press("Tab")


def status(page, text, seconds=40):
    from playwright.sync_api import expect

    expect(page.locator("#status [role=status]")).to_contain_text(text, timeout=1000 * seconds)


def prepare(page, steps=3, side=64, solver="picard"):
    """Quick settings for the solve."""
    page.get_by_role("button", name="Chain and solver").click()
    choose(page, "Solver", solver)
    fill(page, "Steps", steps)
    page.get_by_role("button", name="Chain and solver").click()
    fill(page, "Longest side of the result", side)


@pytest.mark.browser
def test_upload_restore_and_download(page, photo, tmp_path):
    page.locator("#photo input[type=file]").set_input_files(photo)
    status(page, "Ready: the result will have 84 x 76 pixels.")
    prepare(page, side=64)
    status(page, "Ready: the result will have 64 x 56 pixels.")
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "sweeps")
    page.locator("#slider img").first.wait_for()
    assert "Heat map of" in page.locator("#chart img").get_attribute("alt")
    with page.expect_download() as download:
        page.locator("#download-result").click()
    assert download.value.suggested_filename == "photo-restored.png"
    download.value.save_as(tmp_path / "restored.png")
    assert read_image(tmp_path / "restored.png").shape == (3, 56, 64)
    with page.expect_download() as download:
        page.locator("#download-settings").click()
    saved = json.loads(Path(download.value.path()).read_text())
    assert saved["settings"]["steps"] == 3 and saved["result"]["sweeps"] <= 3
    assert page.outside == []
    page.set_viewport_size({"width": 400, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.browser
def test_brush_a_mask_and_read_the_report(page, tmp_path):
    page.get_by_role("button", name="Take the bundled photo").click()
    prepare(page, side=128 if SCREENSHOTS else 64)
    choose(page, "Task", "Inpainting")
    if SCREENSHOTS:  # the documentation shows the built-in prior
        page.get_by_role("button", name="Chain and solver").click()
        choose(page, "Prior", "builtin")
        choose(page, "Solver", "preconditioned")
        fill(page, "Steps", 25)
        page.get_by_role("button", name="Chain and solver").click()
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "Nothing is painted on the photo")
    page.wait_for_timeout(500)
    box = canvas.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle[0] - 60, middle[1] + 70)
    page.mouse.down()
    page.mouse.move(middle[0] - 10, middle[1] + 100, steps=5)
    page.mouse.up()
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "PSNR", seconds=300 if SCREENSHOTS else 40)
    page.locator("#slider img").first.wait_for()
    page.evaluate("window.scrollTo(0, 0)")
    keep_picture(page, "web-page", tmp_path, 2000)
    with page.expect_download() as download:
        page.locator("#download-report").click()
    download.value.save_as(tmp_path / "report.html")
    page.goto((tmp_path / "report.html").as_uri())
    assert page.get_by_role("heading", level=1).inner_text() == "dogs.png"
    assert page.get_by_role("img").count() == 6
    keep_picture(page, "report", tmp_path, 2520)
    page.set_viewport_size({"width": 390, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def saved_settings(page):
    with page.expect_download() as download:
        page.locator("#download-settings").click()
    return json.loads(Path(download.value.path()).read_text())


@pytest.mark.browser
def test_find_the_damage_of_an_old_photo_edit_it_and_restore(page, scratched):
    page.locator("#photo input[type=file]").set_input_files(scratched)
    prepare(page, steps=6)
    choose(page, "Task", "Old photo")
    status(page, "of the photo damaged (detected)")
    assert page.get_by_label("Estimate the noise from the photo").is_checked()
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "damaged (detected)")
    page.locator("#slider img").first.wait_for()
    found = saved_settings(page)
    assert found["settings"]["task"]["mask"] == "detect" and found["settings"]["travel_repeat"] == 2
    assert (found["settings"]["tile"], found["settings"]["tile_overlap"]) == ("auto", None)
    page.get_by_role("button", name="Find them, then edit what was found").click()
    page.get_by_label("paint them", exact=True).wait_for()
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    status(page, "Ready")
    page.wait_for_timeout(500)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 - 60, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 80, box["y"] + box["height"] / 2 + 30, steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "damaged (by the mask)")
    page.locator("#slider img").first.wait_for()
    edited = saved_settings(page)
    assert edited["settings"]["task"]["mask"] == "brush"
    shares = [saved["result"]["findings"]["mask_share"] for saved in (found, edited)]
    assert 0.01 < shares[0] < shares[1] < 0.6  # what was found, and the stroke


@pytest.mark.browser
def test_a_reference_tiles_and_time_travel(page, photo):
    page.locator("#photo input[type=file]").set_input_files(photo)
    prepare(page, side=64, solver="serial")
    page.get_by_role("button", name="Tiles and time travel").click()
    choose(page, "Tile size", "32")
    choose(page, "Tile overlap", "8")
    fill(page, "Time travel: length", 1)
    fill(page, "Time travel: repeats", 2)
    page.get_by_role("button", name="Reference photo").click()
    page.locator("#reference input[type=file]").set_input_files(photo)
    page.get_by_label("the picture itself").check()
    fill(page, "Iterations", 2)
    status(page, "Ready")
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "Distance to the reference")
    page.locator("#slider img").first.wait_for()
    saved = saved_settings(page)
    asked = {"tile": 32, "tile_overlap": 8, "travel_length": 1, "travel_repeat": 2, "reference": "picture"}
    assert {name: saved["settings"][name] for name in asked} == asked
    assert saved["result"]["tile"] == 32 and len(saved["result"]["losses"]) == 2


@pytest.mark.browser
def test_a_result_stays_when_the_settings_change_and_is_named_as_earlier(page, photo):
    from playwright.sync_api import expect

    page.locator("#photo input[type=file]").set_input_files(photo)
    prepare(page)
    status(page, "64 x 56")
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "Converged")
    fill(page, "Noise in the observation", 0.05)
    status(page, "The result below is of the earlier settings.")
    expect(page.locator("#caption")).to_have_text("Before and after, of the earlier settings")
    assert page.locator("#slider img").count() == 2 and page.locator("#slider").is_visible()
    assert saved_settings(page)["settings"]["noise"] == 0
    fill(page, "Noise in the observation", 0)
    status(page, "Converged")
    expect(page.locator("#caption")).to_have_text("Before and after")


@pytest.mark.browser
def test_the_comparison_is_moved_by_keys(page, photo):
    page.locator("#photo input[type=file]").set_input_files(photo)
    prepare(page)
    status(page, "64 x 56")
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "Converged")
    slider = page.get_by_role("slider", name="How much of the picture shows what was restored")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert page.locator(".compare").evaluate("element => element.style.getPropertyValue('--at')") == "45%"
    assert slider.get_attribute("aria-valuetext") == "45 %"
    for name in ("The restored photo", "What was restored"):
        assert page.get_by_role("img", name=name).evaluate("image => image.naturalWidth") == 64


@pytest.mark.browser
def test_stop(page):
    page.get_by_role("button", name="Take the bundled photo").click()
    prepare(page, steps=200, side=128, solver="serial")
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "Step")
    page.get_by_role("button", name="Stop").click()
    status(page, "Stopped.")
    page.wait_for_timeout(1500)
    status(page, "Stopped.")
    assert page.get_by_role("button", name="Restore", exact=True).is_enabled()
    assert not page.locator("#download-result").is_visible()


@pytest.mark.browser
def test_a_bad_file_is_one_sentence(page, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    page.locator("#photo input[type=file]").set_input_files(bad)
    status(page, "bad.png is not a readable PNG")


@pytest.mark.browser
def test_controls_appear_where_they_apply_and_have_names(page):
    from playwright.sync_api import expect

    expect(page.get_by_label("Factor of magnification")).to_be_visible()
    choose(page, "Task", "Deblurring")
    expect(page.get_by_label("Factor of magnification")).to_be_hidden()
    page.get_by_label("motion", exact=True).check()
    expect(page.get_by_role("img", name="motion kernel")).to_be_visible()
    choose(page, "Task", "Denoising")
    expect(page.get_by_label("Noise in the observation").first).to_have_value("0.05")
    for section in ("Chain and solver", "Tiles and time travel", "Reference photo"):
        page.get_by_role("button", name=section).click()
    page.get_by_label("good: damage it first, then compare").check()
    page.wait_for_timeout(500)
    for task in TASK_NAMES:
        choose(page, "Task", task)
        page.wait_for_timeout(300)
        assert nameless_controls(page) == []


@pytest.mark.browser
def test_assistive_software_is_told_groups_states_and_what_belongs_to_what(page, photo):
    from playwright.sync_api import expect

    expect(page.get_by_role("group", name="The photo is")).to_be_visible()
    expect(page.get_by_role("button", name="Photo: click to upload, or drop a file")).to_be_visible()
    section = page.get_by_role("button", name="Chain and solver", exact=True)
    expect(section).to_have_attribute("aria-expanded", "false")
    section.click()
    expect(section).to_have_attribute("aria-expanded", "true")
    for name in ("Noise in the observation", "Steps"):
        expect(page.get_by_role("button", name=f'Reset "{name}" to default value')).to_be_visible()
    expect(page.get_by_label("Solver", exact=True)).to_have_accessible_description(
        "auto measures this machine: serial or preconditioned"
    )
    for task in ("Inpainting", "Deblurring", "Old photo"):
        choose(page, "Task", task)
        page.wait_for_timeout(300)
        groups = page.locator("fieldset:visible").evaluate_all("groups => groups.map(group => group.ariaLabel)")
        assert len(groups) > 1 and all(groups)
    page.get_by_label("Task", exact=True).focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("listbox").first).to_be_visible()
    expect(page.get_by_role("option", name="Denoising")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("option", name="Denoising")).to_have_count(0)
    page.locator("#photo input[type=file]").set_input_files(photo)
    expect(page.get_by_role("button", name="Photo: remove the file")).to_be_visible()


@pytest.mark.browser
def test_focus_can_be_seen(page):
    for field in (page.get_by_label("damaged: restore it"), page.get_by_label("range slider for Longest side")):
        field.focus()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        seen = field.evaluate(
            "field => [field, field.closest('label')].some(e => e && getComputedStyle(e).outlineStyle == 'solid')"
        )
        assert seen


@pytest.mark.browser
def test_a_mask_from_a_file_is_painted_and_can_be_downloaded(page, photo, tmp_path):
    mask = torch.ones(1, 19, 21)
    mask[:, 4:9, 5:12] = 0
    write_image(tmp_path / "mask.png", mask)
    page.locator("#photo input[type=file]").set_input_files(photo)
    prepare(page)
    choose(page, "Task", "Inpainting")
    page.locator("#mask input[type=file]").set_input_files(tmp_path / "mask.png")
    page.get_by_role("button", name="Or a mask from a file: black is filled, white kept: remove the file").wait_for()
    fill(page, "Longest side of the result", 72)  # which puts the photo under the brush anew, and the mask with it
    page.wait_for_timeout(2000)
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "Converged")
    with page.expect_download() as download:
        page.locator("#download-mask").click()
    assert download.value.suggested_filename == "photo-mask.png"
    download.value.save_as(tmp_path / "again.png")
    assert torch.equal(read_image(tmp_path / "again.png"), mask)
    assert saved_settings(page)["mask"] == "photo-mask.png"


@pytest.mark.browser
def test_a_task_is_offered_where_it_applies_and_takes_its_noise_along(page):
    from playwright.sync_api import expect

    page.get_by_label("Task", exact=True).click()
    expect(page.get_by_role("option", name="Compressed sensing")).to_have_count(0)
    page.keyboard.press("Escape")
    page.get_by_label("good: damage it first, then compare").check()
    page.wait_for_timeout(500)
    choose(page, "Task", "Compressed sensing")
    expect(page.get_by_label("Measurements per pixel").first).to_be_visible()
    page.get_by_label("damaged: restore it").check()
    expect(page.get_by_label("Task", exact=True)).to_have_value("Super-resolution")
    choose(page, "Task", "Denoising")
    expect(page.get_by_label("Noise in the observation").first).to_have_value("0.05")
    choose(page, "Task", "Deblurring")
    expect(page.get_by_label("Noise in the observation").first).to_have_value("0")


def nameless_controls(page):
    """What can be used on the page and has no name for a screen reader."""
    inputs = page.locator("input:visible, textarea:visible, button:visible, select:visible")
    return [
        field.evaluate("field => field.outerHTML.slice(0, 160)")
        for field in inputs.all()
        if not field.evaluate(
            "field => field.labels?.length || field.ariaLabel || field.getAttribute('aria-labelledby')"
            " || field.innerText?.trim() || field.title"
        )
    ]


@pytest.fixture
def visit(browser, server):
    """Opens the page as one more visitor; returns (context, page)."""
    contexts = []

    def visit():
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(40_000)
        page.goto(server[0])
        page.get_by_role("button", name="Restore", exact=True).wait_for()
        return context, page

    yield visit
    for context in contexts:
        context.close()


def until(condition, seconds=20):
    deadline = time.time() + seconds
    while not condition() and time.time() < deadline:
        time.sleep(0.2)
    assert condition()


@pytest.mark.browser
def test_nothing_of_a_visitor_is_kept_while_another_stays(visit, server, scratched):
    (context, page), (_, other) = visit(), visit()
    page.locator("#photo input[type=file]").set_input_files(scratched)
    status(page, "Ready")
    prepare(page)
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "Converged")
    addresses = page.locator("#slider img").evaluate_all("images => images.map(image => image.src)")
    assert [other.request.get(address).status for address in addresses] == [200, 200]
    assert [file.name for file in server[1].rglob("uploads/*/*")].count("scratched.png") == 1
    assert len(list(server[1].rglob("scratched-restored.png"))) == 1  # no copy of what is served
    context.close()
    until(lambda: not list(server[1].rglob("*scratched*")))
    assert [other.request.get(address).status for address in addresses] == [403, 403]
    assert not [folder for folder in server[1].rglob("sessions/*") if list(folder.rglob("run-*"))]


@pytest.mark.browser
def test_who_waits_for_another_visitor_is_told_and_can_leave_the_queue(visit):
    from playwright.sync_api import expect

    pages = [page for _, page in (visit(), visit())]
    for page in pages:
        page.get_by_role("button", name="Take the bundled photo").click()
        prepare(page, steps=200, side=128, solver="serial")
        status(page, "Ready: the result will have")
    first, second = pages
    first.get_by_role("button", name="Restore", exact=True).click()
    status(first, "Step")
    second.get_by_role("button", name="Restore", exact=True).click()
    status(second, "Waiting for the restoration of another visitor")
    restore, stop = (second.get_by_role("button", name=name, exact=True) for name in ("Restore", "Stop"))
    expect(restore).to_be_disabled()
    stop.click()
    status(second, "Stopped.")
    expect(restore).to_be_enabled()
    status(first, "Step")
    fill(first, "Noise in the observation", 0.1)  # a preview now would take the place of the image as it forms
    first.wait_for_timeout(1000)
    status(first, "Step")
    first.get_by_role("button", name="Stop").click()
    status(first, "Stopped.")
    expect(first.get_by_text("What will be restored", exact=True)).to_be_visible()
    first.wait_for_timeout(1000)
    status(second, "Stopped.")


@pytest.mark.browser
def test_nothing_is_kept_when_the_last_visitor_leaves(browser, server, photo, client):
    _, parent, _ = server
    context = browser.new_context()
    page = context.new_page()
    page.goto(server[0])
    page.locator("#photo input[type=file]").set_input_files(photo)
    status(page, "Ready")
    assert list(parent.rglob("photo.png"))
    client.close()
    context.close()
    deadline = time.time() + 15
    while list(parent.rglob("photo.png")) and time.time() < deadline:
        time.sleep(0.2)
    assert list(parent.rglob("photo.png")) == []


def test_the_temporary_folder_goes_with_the_server(server):
    _, parent, process = server
    assert list(parent.glob("deqir-ui-*"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "Traceback" not in err
    assert list(parent.glob("deqir-ui-*")) == []
