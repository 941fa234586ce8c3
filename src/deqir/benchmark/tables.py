"""Means with standard errors over images, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deqir.benchmark.cases import Setup
from deqir.benchmark.journal import Record
from deqir.errors import NonFiniteError
from deqir.images import atomic_write

MEANS = ("psnr", "ssim", "lpips", "cons", "sweeps", "nfe", "seconds")
SETS = ("fid", "kid")
TITLES = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "cons": "Cons",
    "fid": "FID",
    "kid": "KID",
    "sweeps": "sweeps",
    "nfe": "NFE",
    "seconds": "seconds",
}
FORMATS = {"psnr": ".2f", "ssim": ".4f", "lpips": ".4f", "cons": ".2f", "fid": ".2f", "kid": ".5f", "seconds": ".2f"}


@dataclass(frozen=True)
class Mean:
    """A mean over images with its standard error, None for a single image; an infinite mean has none either."""

    value: float
    error: float | None

    @classmethod
    def of(cls, name: str, values: Sequence[float | None]) -> Mean:
        """The mean of ``values``; a None among them is infinite. Raises NonFiniteError for none, or for NaN."""
        if not values:
            raise NonFiniteError(f"{name} has no values to average; run the benchmark first")
        numbers = [math.inf if value is None else float(value) for value in values]
        if any(math.isnan(number) for number in numbers):
            raise NonFiniteError(f"{name} is NaN for an image, so there is no mean; look at its record in runs.jsonl")
        count, mean = len(numbers), math.fsum(numbers) / len(numbers)
        if count == 1 or math.isinf(mean):
            return cls(mean, None)
        variance = math.fsum((number - mean) ** 2 for number in numbers) / (count - 1)
        return cls(mean, math.sqrt(variance / count))

    def text(self, format_spec: str) -> str:
        """``21.30 ± 0.42``."""
        value = f"{self.value:{format_spec}}"
        return value if self.error is None else f"{value} ± {self.error:{format_spec}}"


@dataclass(frozen=True)
class Row:
    """One setup over its images: ``means`` by the names in MEANS, ``sets`` (FID, KID), both only where known.

    ``converged`` of ``images`` chains met their tolerance, of ``asked`` images that were in the data.
    """

    setup: Setup
    images: int
    asked: int
    converged: int
    means: Mapping[str, Mean]
    sets: Mapping[str, float]


def summarise(
    records: Mapping[Setup, Mapping[str, Record]], asked: int, sets: Mapping[Setup, Mapping[str, float]] | None = None
) -> list[Row]:
    """One row a setup that has a record; ``asked`` images were in the data.

    A figure that some image of a setup lacks has no mean there. Raises NonFiniteError where there is no record at all.
    """
    rows = []
    for setup, by_image in records.items():
        found = list(by_image.values())
        if found:
            known = [name for name in MEANS if all(name in record for record in found)]
            means = {name: Mean.of(name, [record[name] for record in found]) for name in known}
            converged = sum(record["status"] == "converged" for record in found)
            rows.append(Row(setup, len(found), asked, converged, means, (sets or {}).get(setup, {})))
    if not rows:
        raise NonFiniteError("no image could be restored, so there is no table; see the failures named above")
    return rows


def write_tables(folder: Path, rows: Sequence[Row], absent: Mapping[str, str], failures: Sequence[str]) -> None:
    """Write ``table.md``, ``table.csv`` and ``table.json`` into ``folder``; ``absent`` has a reason by figure."""
    atomic_write(folder / "table.md", markdown(rows, absent, failures).encode())
    atomic_write(folder / "table.csv", comma_separated(rows).encode())
    described = {"rows": [as_json(row) for row in rows], "absent": dict(absent), "failures": list(failures)}
    atomic_write(folder / "table.json", (json.dumps(described, indent=2, allow_nan=False) + "\n").encode())


def markdown(rows: Sequence[Row], absent: Mapping[str, str], failures: Sequence[str] = ()) -> str:
    """The table with what is missing under it; the consistency has a column where some row has it."""
    names = [
        name for name in (*MEANS[:3], *SETS, *MEANS[3:]) if name != "cons" or any(name in row.means for row in rows)
    ]
    titles = ("task", "method", "prior", "steps", "images", *(TITLES[name] for name in names), "converged")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        cells = [*_described(row), f"{row.images} of {row.asked}", *(_cell(row, name) for name in names)]
        lines.append("| " + " | ".join([*cells, f"{row.converged} of {row.images}"]) + " |")
    notes = ["Means over images, ± the standard error of the mean; seconds of one image at a time."]
    notes += [f"{TITLES[name]} is absent: {reason}." for name, reason in absent.items()]
    notes += [f"Failed: {failure}" for failure in failures]
    return "\n".join(lines) + "\n\n" + "\n\n".join(notes) + "\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """One line a row, means and standard errors in columns of their own, empty where absent."""
    names = [part for name in MEANS for part in (name, f"{name}_error")]
    titles = ["task", "method", "prior", "steps", "images", "asked", "converged", *names, *SETS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles)
    for row in rows:
        figures: list[Any] = []
        for name in MEANS:
            mean = row.means.get(name)
            figures += ["", ""] if mean is None else [mean.value, "" if mean.error is None else mean.error]
        counts = (row.images, row.asked, row.converged)
        writer.writerow([*_described(row), *counts, *figures, *(row.sets.get(name, "") for name in SETS)])
    return text.getvalue()


def as_json(row: Row) -> dict[str, Any]:
    """A row as JSON can hold it: an infinite mean is None."""
    means = {
        name: {"mean": mean.value if math.isfinite(mean.value) else None, "standard_error": mean.error}
        for name, mean in row.means.items()
    }
    counts = {"images": row.images, "asked": row.asked, "converged": row.converged}
    return {**row.setup.settings(), **counts, **means, **row.sets}


def _described(row: Row) -> list[str]:
    setup = row.setup
    steps = "-" if setup.chain is None else str(setup.chain.steps)
    return [str(setup.degradation), str(setup.method), setup.prior or "-", steps]


def _cell(row: Row, name: str) -> str:
    if name in SETS:
        return f"{row.sets[name]:{FORMATS[name]}}" if name in row.sets else "absent"
    mean = row.means.get(name)
    if mean is None:
        return "-" if name == "cons" else "absent"
    return mean.text(FORMATS.get(name, ".1f"))
