"""``deqir verify``: make recorded results again and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deqir.cli.app import app
from deqir.cli.console import FAILURE, err, out


@app.command(epilog="Example:  deqir verify run.json")
def verify(
    run: Annotated[
        Path,
        typer.Argument(
            readable=False,
            help="Records of --stats, a report, a folder of results, or the record of optimize, invert, explain.",
        ),
    ],
    grey_levels: Annotated[
        float, typer.Option(help="Difference that counts as equal, in grey levels of 0..255, beside a solver's own.")
    ] = 1.0,
) -> None:
    """Restore every recorded file again and compare the results; the exit code is 1 where one differs or none ran."""
    from deqir.cli.replay import run_again
    from deqir.reproduction import Outcome, read_records, verify_record

    outcomes = []
    for record in read_records(run):
        verdict = verify_record(record, grey_levels, run_again)
        outcomes.append(verdict.outcome)
        out.print(": ".join(part for part in (verdict.file, verdict.outcome.value, verdict.detail) if part))
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome.value}" for outcome in Outcome)
    err.print(f"{len(outcomes)} records: {counts}")
    if Outcome.DIFFERENT in outcomes or set(outcomes) == {Outcome.NOT_REPEATED}:
        raise typer.Exit(FAILURE)
