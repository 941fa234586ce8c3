"""The real server, its clients and a real browser."""

import os
import re
import shutil
import socket
import subprocess
import sys

import pytest
import torch

from deqir.images import write_image

CHROMIUM = shutil.which("chromium")


FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture
def scratched(tmp_path):
    """A grey gradient with a bright scratch."""
    image = torch.linspace(0.2, 0.6, 64).expand(1, 48, 64).clone()
    image[:, :, 30:32] = 1
    write_image(tmp_path / "scratched.png", image)
    return tmp_path / "scratched.png"


@pytest.fixture(scope="session")
def server(prior_folder, tmp_path_factory):
    """A real server with a tiny prior, (address, its temporary folders' parent, process)."""
    pytest.importorskip("gradio", reason="the web page needs the extra deqir[ui]")
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


@pytest.fixture(scope="session")
def client(server):
    from gradio_client import Client

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_ANALYTICS_ENABLED", "False")  # no message to Gradio's makers
        client = Client(server[0], verbose=False, analytics_enabled=False)
        yield client
        client.close()


@pytest.fixture(scope="session")
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
