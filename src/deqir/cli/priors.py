"""``deqir priors``: which priors there are, and where."""

from __future__ import annotations

from deqir.cli.app import app
from deqir.cli.console import out


@app.command(epilog="Example:  deqir priors")
def priors() -> None:
    """List the built-in prior, those in the hub's cache and known ones: size, licence, where to get them."""
    from deqir.priors.catalogue import listed_priors

    rows = [("prior", "pixels", "parameters", "weights", "licence", "state", "where")]
    for prior, state in listed_priors():
        parameters = "?" if prior.parameters is None else f"{prior.parameters / 1e6:.1f} M"
        weights = "?" if prior.file_size is None else f"{prior.file_size / 1e6:.0f} MB"
        pixels = str(prior.image_size or "?")
        rows.append((prior.source, pixels, parameters, weights, prior.licence, state, prior.origin))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        out.print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
