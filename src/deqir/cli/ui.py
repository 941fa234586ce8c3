"""``deqir ui``: the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from deqir.cli import words
from deqir.cli.app import app
from deqir.cli.console import out
from deqir.cli.words import completed


@app.command(epilog="Example:  deqir ui --port 7860")
def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets the whole network in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    prior: Annotated[
        Optional[list[str]], typer.Option(help="builtin, or a diffusers folder; give several to let visitors choose.")
    ] = None,
    device: Annotated[
        Optional[str],
        typer.Option(
            autocompletion=completed(words.DEVICES), help="cpu, cuda, cuda:1, mps (default: cuda where there is one)."
        ),
    ] = None,
    max_side: Annotated[int, typer.Option(help="Longest side of a result, in pixels.")] = 1024,
    max_steps: Annotated[int, typer.Option(help="Network calls of a serial chain at most.")] = 250,
    max_iterations: Annotated[int, typer.Option(help="Iterations toward a reference photo at most.")] = 30,
    max_megabytes: Annotated[int, typer.Option(help="Size of an uploaded file at most.")] = 30,
) -> None:
    """Serve a web page that restores uploaded photos, until interrupted; nothing uploaded is kept."""
    from deqir.priors import load_prior
    from deqir.restoration import resolve_device
    from deqir.webui import Limits, check_gradio, serve

    check_gradio()
    resolve_device(device)
    sources = {Path(source).name: source for source in prior or ["builtin"]}
    for source in sources.values():
        load_prior(source)
    limits = Limits(max_side, max_steps, max_megabytes * 1_000_000, iterations=max_iterations)
    serve(host, port, sources, limits, device, lambda address: out.print(f"deqir is at {address} (Ctrl-C ends it)"))
