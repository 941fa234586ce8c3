"""``deqir doctor``: what deqir runs on."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from deqir.cli.app import app
from deqir.cli.console import FAILURE, err, out


@app.command(epilog="Example:  deqir doctor")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for a program or a report.")] = False,
) -> None:
    """Show versions, devices, memory, extras, caches and whether the built-in prior loads: what a bug report needs."""
    from deqir.doctor import examine, problems

    findings = examine()
    if as_json:
        out.print(json.dumps(findings, indent=2))
    else:
        for line in _lines(findings):
            out.print(line)
    found = problems(findings)
    for problem in found:
        err.print(f"deqir: {problem}")
    if found:
        raise typer.Exit(FAILURE)


def _lines(findings: dict[str, Any]) -> list[str]:
    memory = findings["memory"]
    lines = [f"deqir {findings['deqir']}, Python {findings['python']}, {findings['platform']}"]
    lines.append("packages: " + ", ".join(f"{name} {state}" for name, state in findings["packages"].items()))
    for device in findings["devices"]:
        details = [f"{value} GB {key}" if key in ("free", "total") else str(value) for key, value in device.items()]
        if "threads" in device:
            details[-1] += " threads"
        lines.append("device: " + ", ".join(details))
    lines.append(f"memory: {memory['available']} of {memory['total']} GB free")
    for name, packages in findings["extras"].items():
        missing = [package for package, state in packages.items() if state == "missing"]
        lines.append(f"extra {name}: " + (f"missing {', '.join(missing)}" if missing else "installed"))
    for name, cache in findings["caches"].items():
        lines.append(f"{name}: {cache['folder']} ({', '.join(cache['holds']) or 'none'})")
    lines.append(f"built-in prior: {findings['prior']['state']}")
    return lines
