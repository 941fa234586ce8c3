"""The page for those who use keys or a screen reader, in a real browser."""

import pytest
from steps import choose, restore_quickly

pytest.importorskip("gradio", reason="the web page needs the extra deqir[ui]")

from deqir.webui.controls import TASK_NAMES


def nameless_controls(page):
    """What can be used on the page and has no name for a screen reader."""
    nameless = """fields => fields.filter(
        field => !(field.labels?.length || field.ariaLabel || field.getAttribute('aria-labelledby')
                   || field.innerText?.trim() || field.title)
    ).map(field => field.outerHTML.slice(0, 160))"""
    return page.locator("input:visible, textarea:visible, button:visible, select:visible").evaluate_all(nameless)


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
    assert page.locator("input:visible").count() > 10


@pytest.mark.browser
def test_the_comparison_is_moved_by_keys(page, photo):
    restore_quickly(page, photo)
    slider = page.get_by_role("slider", name="How much of the picture shows what was restored")
    slider.focus()
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert page.locator(".compare").evaluate("element => element.style.getPropertyValue('--at')") == "45%"
    assert slider.get_attribute("aria-valuetext") == "45 %"
    for name in ("The restored photo", "What was restored"):
        assert page.get_by_role("img", name=name).evaluate("image => image.naturalWidth") == 64


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
