"""Every package that deqir brings along, directly or not, with its version and licence, and whether they fit together.

    python scripts/dependencies.py --extras ui report --out dependencies.md

It reads what the installed packages say of themselves and asks no service; scripts/audit.py looks for vulnerabilities.
The exit code is 1 where a package is missing or has a version that another refuses.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT_PACKAGE = "deqir"
UNKNOWN = "not stated"
LONGEST = 60  # some packages put the whole text of the licence where its name belongs


def needed(package: Distribution, extras: set[str]) -> list[Requirement]:
    """The requirements of ``package`` that hold on this machine, those of ``extras`` included."""
    requirements = [Requirement(text) for text in package.requires or []]
    return [
        item
        for item in requirements
        if item.marker is None or any(item.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def closure(extras: set[str]) -> tuple[dict[str, Distribution], list[str]]:
    """The packages by name, and one sentence for each requirement that is not met."""
    found: dict[str, Distribution] = {}
    problems: list[str] = []
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(ROOT_PACKAGE, frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        package = found.setdefault(name, distribution(name))
        for item in needed(package, set(wanted)):
            trouble = unmet(item)
            if trouble:
                problems.append(f"{name} needs {item.name}{item.specifier}, which is {trouble}")
            if trouble != "missing":
                waiting.append((canonicalize_name(item.name), frozenset(item.extras)))
    return found, problems


def unmet(item: Requirement) -> str:
    """What is wrong with the installed version of ``item``; empty where it fits."""
    try:
        version = distribution(item.name).version
    except PackageNotFoundError:
        return "missing"
    return "" if item.specifier.contains(version, prereleases=True) else version


def licence(package: Distribution) -> str:
    """The licence that ``package`` states: its expression, else its classifiers, else its licence field."""
    information = package.metadata
    classifiers = [text.split(" :: ")[-1] for text in information.get_all("Classifier", []) if "License ::" in text]
    stated = (information.get("License") or "").strip().partition("\n")[0][:LONGEST]
    return information.get("License-Expression") or ", ".join(classifiers) or stated or UNKNOWN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extras", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--out", type=Path, help="Markdown file for the table (default: the screen)")
    arguments = parser.parse_args()
    found, problems = closure(set(arguments.extras))
    del found[ROOT_PACKAGE]
    rows = [(name, package.version, licence(package)) for name, package in sorted(found.items())]
    lines = ["| package | version | licence |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    text = "\n".join(lines) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    else:
        print(text)
    silent = sum(row[-1] == UNKNOWN for row in rows)
    summary = f"{len(rows)} packages, {silent} without a stated licence, {len(problems)} that do not fit"
    print(summary, *problems, sep="\n", file=sys.stderr)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
