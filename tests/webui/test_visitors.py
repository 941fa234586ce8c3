"""Several visitors of one server; the last test of this folder ends it."""

import signal
import time

import pytest
from steps import fill, prepare, status


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


def results(server):
    """The folders of what was restored."""
    return set(server[1].rglob("sessions/*/run-*"))


@pytest.mark.browser
def test_nothing_of_a_visitor_is_kept_while_another_stays(visit, server, scratched):
    kept = results(server)  # of programs that are still connected
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
    assert len(results(server) - kept) == 1
    context.close()
    until(lambda: not list(server[1].rglob("*scratched*")))
    assert [other.request.get(address).status for address in addresses] == [403, 403]
    until(lambda: results(server) <= kept)


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
