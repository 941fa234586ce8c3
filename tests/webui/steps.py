"""What a visitor does on the page."""

import json
from pathlib import Path


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


def restore_quickly(page, photo):
    """Upload ``photo`` and restore it with quick settings, to the end."""
    page.locator("#photo input[type=file]").set_input_files(photo)
    prepare(page)
    status(page, "64 x 56")
    page.get_by_role("button", name="Restore", exact=True).click()
    status(page, "Converged")


def saved_settings(page):
    with page.expect_download() as download:
        page.locator("#download-settings").click()
    return json.loads(Path(download.value.path()).read_text())
