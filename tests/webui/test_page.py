"""The page in a real browser: photos, masks, tasks and results."""

import json
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from steps import choose, fill, prepare, restore_quickly, saved_settings, status

from deqir.images import read_image, write_image

SCREENSHOTS = os.environ.get("DEQIR_SCREENSHOTS")  # the folder of the documentation's pictures, to refresh them


LARGEST_PICTURE = 150_000  # bytes


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
def test_the_bundled_photo_is_one_that_suits_the_task(page):
    take, good = page.get_by_role("button", name="Take the bundled photo"), page.get_by_label("good: damage it first")
    prepare(page)
    take.click()
    status(page, "Ready")
    assert good.is_checked()
    choose(page, "Task", "Old photo")
    take.click()
    status(page, "of the photo damaged (detected)")
    assert not good.is_checked() and page.get_by_text("whitman", exact=False).count()


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

    restore_quickly(page, photo)
    fill(page, "Noise in the observation", 0.05)
    status(page, "The result below is of the earlier settings.")
    expect(page.locator("#caption")).to_have_text("Before and after, of the earlier settings")
    assert page.locator("#slider img").count() == 2 and page.locator("#slider").is_visible()
    assert saved_settings(page)["settings"]["noise"] == 0
    fill(page, "Noise in the observation", 0)
    status(page, "Converged")
    expect(page.locator("#caption")).to_have_text("Before and after")


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
