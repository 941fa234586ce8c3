"""The tests on the oldest and the newest packages that pyproject.toml allows, for several versions of Python.

    python scripts/compatibility.py --pythons 3.10 3.13 --out compatibility.md

Each row is an environment of its own that uv makes and fills with deqir's wheel and the extra ``test``: the lowest
versions that have a wheel for that Python, or the highest. The tests run there without those of ``SLOW`` and of the
browser, which other packages hardly touch, and with warnings allowed, for old packages warn of new ones. The
environment is deleted before the next row; with torch for CUDA it takes 7 GB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
SLOW = ("tests/faults", "tests/fuzz", "tests/properties")
SHOWN = ("torch", "diffusers", "numpy", "scikit-image", "pillow", "huggingface-hub")


@dataclass(frozen=True)
class Row:
    """What one environment gave: the versions of its packages, the counts of its tests, the tests that failed."""

    python: str
    versions: str
    packages: dict[str, str] = field(default_factory=dict)
    passed: int = 0
    skipped: int = 0
    failures: tuple[str, ...] = ()
    trouble: str = ""

    def cells(self) -> list[str]:
        """The row of the table."""
        packages = [self.packages.get(name, "") for name in SHOWN]
        outcome = self.trouble or f"{self.passed} passed, {self.skipped} skipped, {len(self.failures)} failed"
        return [self.python, self.versions, *packages, outcome]


def run(command: list[str], **settings) -> subprocess.CompletedProcess[str]:
    """``command`` with its output captured."""
    return subprocess.run(command, capture_output=True, text=True, **settings)


def try_row(python: str, versions: str, wheel: Path, seconds: float) -> Row:
    """Make the environment, run the tests for at most ``seconds``, delete it."""
    with tempfile.TemporaryDirectory(prefix="deqir-compatibility-") as folder:
        home = Path(folder)
        uv = ["uv", "--quiet", "--cache-dir", str(home / "cache")]  # on the disk of the environment: linked, not copied
        made = run([*uv, "venv", "--python", python, "--no-python-downloads", str(home / "env")])
        if made.returncode:
            return Row(python, versions, trouble="no such Python on this machine")
        interpreter = str(home / "env" / "bin" / "python")
        install = [*uv, "pip", "install", "--python", interpreter, "--only-binary", ":all:"]
        named = [
            "--resolution",
            RESOLUTIONS[versions],
            "--requirement",
            str(ROOT / "pyproject.toml"),
            "--extra",
            "test",
        ]
        for what in (named, ["--no-deps", str(wheel)]):
            installed = run([*install, *what])
            if installed.returncode:
                print(installed.stderr, file=sys.stderr)
                return Row(python, versions, trouble="could not be installed")
        found = run([*uv, "pip", "list", "--python", interpreter, "--format", "freeze"]).stdout
        packages = dict(line.split("==") for line in found.splitlines() if "==" in line)
        return Row(python, versions, packages, **test(interpreter, home / "junit.xml", seconds))


def test(interpreter: str, junit: Path, seconds: float) -> dict[str, object]:
    """The counts of the tests under ``interpreter``, and which failed."""
    selection = ["-m", "not browser", *(f"--ignore={folder}" for folder in SLOW)]
    settings = ["-W", "default", "-p", "no:cacheprovider", f"--junitxml={junit}"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        ran = run([interpreter, "-m", "pytest", *selection, *settings], cwd=ROOT, env=environment, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"trouble": f"not done after {seconds:.0f} s"}
    if not junit.exists():
        print(ran.stdout + ran.stderr, file=sys.stderr)
        return {"trouble": "the tests did not start"}
    cases = list(ElementTree.parse(junit).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    if failed:
        print(ran.stdout, file=sys.stderr)
    names = tuple(f"{case.get('classname')}::{case.get('name')}" for case in failed)
    return {"passed": len(cases) - len(failed) - skipped, "skipped": skipped, "failures": names}


def table(rows: list[Row]) -> str:
    """The rows in Markdown, and under them what failed."""
    header = ["Python", "versions", *SHOWN, "tests"]
    lines = [header, ["---"] * len(header), *(row.cells() for row in rows)]
    failed = [f"- {row.python}, {row.versions}: `{name}`" for row in rows for name in row.failures]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", *failed]).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pythons", nargs="+", default=["3.10", "3.11", "3.12", "3.13"], metavar="VERSION")
    parser.add_argument("--versions", nargs="+", choices=RESOLUTIONS, default=list(RESOLUTIONS))
    parser.add_argument("--seconds", type=float, default=2400, help="limit on the tests of one row")
    parser.add_argument("--out", type=Path, required=True, help="Markdown file; rewritten after every row")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="deqir-wheel-") as folder:
        subprocess.run(["uv", "--quiet", "build", "--out-dir", folder, str(ROOT)], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        for python, versions in product(arguments.pythons, arguments.versions):
            rows.append(try_row(python, versions, wheel, arguments.seconds))
            arguments.out.write_text(table(rows), encoding="utf-8")
            print(" | ".join(rows[-1].cells()), flush=True)
    sys.exit(any(row.failures or row.trouble for row in rows))


if __name__ == "__main__":
    main()
