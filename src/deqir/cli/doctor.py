"""``deqir doctor``: what is installed, and whether it works."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from deqir.cli.app import app
from deqir.cli.console import FAILURE, out


@app.command(epilog="Example:  deqir doctor")
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, devices, memory, extras, the cache and the built-in prior; end with 1 where something is wrong."""
    from deqir.doctor import examine

    found = examine()
    out.print(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))
    if found["problems"]:
        raise typer.Exit(FAILURE)


def _lines(found: dict[str, Any]) -> list[str]:
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in found["packages"].items())
    memory = f"{found['memory_gb']} GB" if found["memory_gb"] else "unknown"
    rows = [
        ("deqir", f"{found['deqir']}, Python {found['python']}, {found['platform']}"),
        ("packages", packages),
        ("memory", f"{memory}, {found['threads']} threads"),
        *(("device", _device(device)) for device in found["devices"]),
        *(("extra", _extra(name, missing)) for name, missing in found["extras"].items()),
        ("cache", f"{found['cache']['folder']}, {found['cache']['megabytes']} MB"),
        ("prior", f"built in: {found['prior']}"),
    ]
    return [f"{name:10}{text}" for name, text in rows]


def _device(device: dict[str, Any]) -> str:
    text = f"{device['device']}: {device['name']}"
    return text + (f", {device['free_gb']} of {device['total_gb']} GB free" if "total_gb" in device else "")


def _extra(name: str, missing: list[str]) -> str:
    return f"{name}: lacks {', '.join(missing)}; pip install 'deqir[{name}]'" if missing else f"{name}: installed"
