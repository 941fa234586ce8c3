"""What the page works with: previews, restorations and their downloads."""

import json
import subprocess
import sys

import pytest
import torch

from deqir.errors import OptionError
from deqir.images import read_image, write_image
from deqir.initialization import Iteration

pytest.importorskip("gradio", reason="the web page needs the extra deqir[ui]")

from deqir.webui import looks
from deqir.webui.photos import covered, painted_mask
from deqir.webui.sessions import Sessions
from deqir.webui.settings import Limits
from deqir.webui.workbench import Workbench


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


def test_a_photo_of_which_nothing_is_known_is_not_ready(workbench, tmp_path):
    write_image(tmp_path / "grey.png", torch.full((3, 32, 32), 0.5))
    preview = workbench.preview(str(tmp_path / "grey.png"), workbench.settings({"task": "auto", "noise": "auto"}))
    assert preview.leave_alone and "Nothing to restore" in looks.ready(preview, 1024)


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
