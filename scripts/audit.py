"""Known vulnerabilities of the installed packages, by a copy of the Python Packaging Advisory Database.

    git clone https://github.com/pypa/advisory-database
    python scripts/audit.py advisory-database

Where the network allows it, pip-audit asks for the newest advisories instead. The exit code is 1 where an advisory
holds for an installed version and EXPLAINED does not say why that is no matter.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

EXPLAINED: Mapping[str, str] = {
    "PYSEC-2023-228": "pip installs packages and is no part of deqir; it concerns Mercurial addresses given to pip",
}
"""Advisories that hold for an installed version and do not concern deqir: id and reason."""

Advisory = dict[str, Any]


def installed() -> dict[str, str]:
    """The version of every package in this environment, by its canonical name."""
    return {canonicalize_name(item.metadata["Name"]): item.version for item in distributions() if item.metadata["Name"]}


def git(folder: Path, *arguments: str) -> str:
    """What git prints for the repository in ``folder``, with or without a work tree."""
    return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True).stdout


def advisories(folder: Path, names: Iterable[str]) -> Iterator[Advisory]:
    """The advisories of the packages called ``names`` in the database in ``folder``, a git repository."""
    wanted = set(names)
    for file in git(folder, "ls-tree", "-r", "--name-only", "HEAD", "vulns/").splitlines():
        parts = file.split("/")
        if len(parts) == 3 and canonicalize_name(parts[1]) in wanted:
            advisory = yaml.safe_load(git(folder, "show", f"HEAD:{file}"))
            if not advisory.get("withdrawn"):
                yield advisory


def holds(affected: Mapping[str, Any], version: str) -> bool:
    """Whether ``version`` is among those ``affected``: listed, or between events of a range. Unknown ones count."""
    if version in (affected.get("versions") or ()):
        return True
    try:
        number = Version(version)
    except InvalidVersion:
        return True
    ranges = [item for item in affected.get("ranges") or () if item["type"] == "ECOSYSTEM"]
    return any(_within(item["events"], number) for item in ranges)


def _within(events: Iterable[Mapping[str, str]], version: Version) -> bool:
    inside = False
    for event in events:
        if "introduced" in event and version >= Version(event["introduced"]):
            inside = True
        if "fixed" in event and version >= Version(event["fixed"]):
            inside = False
        if "last_affected" in event and version > Version(event["last_affected"]):
            inside = False
    return inside


def hits(found: Iterable[Advisory], have: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The id and one line of every advisory that holds for a version in ``have``."""
    for advisory in found:
        for affected in advisory["affected"]:
            name = canonicalize_name(affected["package"]["name"])
            if name in have and holds(affected, have[name]):
                known = ", ".join([advisory["id"], *advisory.get("aliases", ())])
                yield advisory["id"], f"{name} {have[name]}: {known}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database", type=Path, help="the folder of the database, a git repository")
    folder = parser.parse_args().database
    have = installed()
    found = list(advisories(folder, have))
    lines = dict(hits(found, have))
    as_of = git(folder, "log", "-1", "--format=%cs").strip()
    print(f"{len(have)} packages, {len(found)} advisories for them as of {as_of}, {len(lines)} hold")
    for number, line in lines.items():
        print(line, f"({EXPLAINED[number]})" if number in EXPLAINED else "")
    sys.exit(bool(lines.keys() - EXPLAINED.keys()))


if __name__ == "__main__":
    main()
