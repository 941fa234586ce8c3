"""Serving the page, from a temporary folder that goes with the server."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from deqir.errors import MissingExtraError, OptionError
from deqir.report import check_drawing
from deqir.webui.sessions import RESULTS, UPLOADS, Sessions
from deqir.webui.settings import Limits


def check_gradio() -> None:
    """Raise MissingExtraError where what the page needs is not installed."""
    if importlib.util.find_spec("gradio") is None:
        raise MissingExtraError("the web page needs gradio, which is not installed; pip install 'deqir[ui]'")
    check_drawing()


def serve(
    host: str,
    port: int,
    priors: Mapping[str, str],
    limits: Limits,
    device: str | None,
    ready: Callable[[str], None],
) -> None:
    """Serve the page until the process is interrupted; ``ready`` gets its address.

    ``priors`` maps names to what ``load_prior`` takes; the first is the default. Uploads and results live in one
    temporary folder, which is removed at the end. Raises OptionError where the address cannot be used.
    """
    check_gradio()
    _check_address(host, port)
    with TemporaryDirectory(prefix="deqir-ui-", ignore_cleanup_errors=True) as folder:
        root = Path(folder).resolve()
        os.environ["GRADIO_TEMP_DIR"] = str(root / UPLOADS)  # read when gradio is imported
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        _serve(host, port, priors, limits, device, ready, root)


def _check_address(host: str, port: int) -> None:
    """Raise OptionError where nothing can listen there."""
    if not 0 < port < 2**16:
        raise OptionError(f"port is {port}; choose from 1 to {2**16 - 1}")
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise OptionError(f"{host}:{port} cannot be used ({error.strerror}); choose another --port or --host") from None


def _serve(
    host: str,
    port: int,
    priors: Mapping[str, str],
    limits: Limits,
    device: str | None,
    ready: Callable[[str], None],
    root: Path,
) -> None:
    import gradio as gr

    from deqir.webui import looks
    from deqir.webui.page import build_page
    from deqir.webui.script import SCRIPT
    from deqir.webui.style import STYLE
    from deqir.webui.workbench import Workbench

    gr.set_static_paths([root / RESULTS])  # served from there; Gradio would copy what it serves, and keep the copies
    page = build_page(Workbench(limits, priors, device, Sessions(root)))
    page.queue(max_size=limits.waiting)
    ended = threading.Event()
    _, address, _ = page.launch(
        server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, ssr_mode=False,
        max_file_size=limits.file_bytes, theme=looks.theme(), css=STYLE, js=SCRIPT, footer_links=[], run_history=False,
        enable_monitoring=False,
    )  # fmt: skip
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a visitor who leaves in mid-request is no error
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: ended.set())
    try:
        ready(address)
        ended.wait()
    finally:
        page.close(verbose=False)
