"""Build the sdist and the wheel, compare what is in them with the source, and run the demo with the installed wheel.

    python scripts/distributions.py

The wheel is built from the sdist and goes into an environment of its own. What it declares is compared with what the
source imports. The environment borrows the packages that the wheel declares, and those that they declare, from the one
that runs this script, and sees no others; the deqir in use is asserted to be the wheel's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from importlib.metadata import Distribution, distributions
from pathlib import Path

from declared import borrow, brought, undeclared

ROOT = Path(__file__).resolve().parent.parent
DIST_INFO = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}
TOP = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
EGG_INFO = {"PKG-INFO", "SOURCES.txt", "dependency_links.txt", "entry_points.txt", "requires.txt", "top_level.txt"}
LARGEST_MB = 20
LEAST_PSNR = 27.0  # enlarging by repeating pixels has less; five steps of the built-in prior have 27.8
DEMO_STEPS = 2
RESTORE = ("--task", "sr", "--scale", "4", "--simulate", "--steps", "5")


def package_files() -> set[str]:
    """What the package consists of, ``deqir/...``: code, the built-in prior and its card, the photo, py.typed."""
    source = ROOT / "src"
    files = {path.relative_to(source) for path in (source / "deqir").rglob("*") if path.is_file()}
    return {file.as_posix() for file in files if "__pycache__" not in file.parts}


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, stdout=subprocess.DEVNULL)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def sdist_files(sdist: Path) -> tuple[set[str], set[str]]:
    """The files in the sdist, and those that belong there."""
    with tarfile.open(sdist) as archive:
        found = {member.name.partition("/")[2] for member in archive if member.isfile()}
    wanted = TOP | {f"src/{name}" for name in package_files()} | {f"src/deqir.egg-info/{name}" for name in EGG_INFO}
    return found, wanted


def wheel_files(wheel: Path) -> tuple[set[str], set[str]]:
    """The files in the wheel, and those that belong there."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if not name.endswith("/")}
    information = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    return found, package_files() | {f"{information}/{name}" for name in DIST_INFO}


def check(archive: Path, found: set[str], wanted: set[str]) -> None:
    """End with a sentence where something is missing, stray or large."""
    if found != wanted:
        sys.exit(f"{archive.name} lacks {sorted(wanted - found)} and should not have {sorted(found - wanted)}")
    megabytes = archive.stat().st_size / 1e6
    if megabytes > LARGEST_MB:
        sys.exit(f"{archive.name} has {megabytes:.1f} MB, more than {LARGEST_MB}")
    print(f"{archive.name}: {len(found)} files as in the source, {megabytes:.1f} MB")


def install(wheel: Path, folder: Path) -> Path:
    """The ``bin`` of a new environment with the wheel and what it declares, borrowed from this environment."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = Path(_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(pip, check=True)
    (package,) = distributions(name="deqir", path=[str(site)])
    check_requirements(package)
    borrow(brought(package), folder / "borrowed")
    (site / "borrowed.pth").write_text(f"{folder / 'borrowed'}\n", encoding="utf-8")
    where = _output([python, "-c", "import deqir; print(deqir.__file__)"], folder).strip()
    if not Path(where).is_relative_to(site):
        sys.exit(f"the deqir in use is {where}, not the wheel's")
    print(f"imported: {where}")
    return python.parent


def check_requirements(package: Distribution) -> None:
    """End with a sentence where the source imports what the wheel does not declare."""
    missing = undeclared(ROOT / "src" / "deqir", package.requires or [])
    if missing:
        sys.exit("; ".join(missing))
    print(f"declared: every import of the source, and {len(brought(package))} packages with what they bring along")


def restore(programs: Path, folder: Path) -> None:
    """Restore the photo that is in the wheel with the prior that is in the wheel."""
    (photo,) = folder.rglob("deqir/data/dogs.png")
    command = [programs / "deqir", "restore", photo, *RESTORE, "--out", "results", "--stats", "stats.json"]
    _output(command, folder)
    (record,) = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    if not record["psnr"] > LEAST_PSNR:
        sys.exit(f"the restored photo has {record['psnr']:.2f} dB, less than {LEAST_PSNR}")
    print(f"restored: {record['psnr']:.2f} dB")


def demo(programs: Path, folder: Path) -> None:
    """Run the demo, shortened."""
    _output([programs / "deqir", "demo", "--steps", str(DEMO_STEPS), "--out", "demo"], folder)
    records = json.loads((folder / "demo" / "demo.json").read_text(encoding="utf-8"))
    if len(records) != 3 or not (folder / "demo" / "sheet.png").stat().st_size:
        sys.exit(f"the demo has {len(records)} tasks, not 3, or no sheet")
    print(f"demo: {len(records)} tasks, {DEMO_STEPS} steps")


def _output(command: list[object], folder: Path) -> str:
    """What ``command`` prints, run in ``folder`` with nothing of this environment but its path."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return run.stdout


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="deqir-distributions-") as temporary:
        folder = Path(temporary)
        sdist, wheel = build(folder)
        check(sdist, *sdist_files(sdist))
        check(wheel, *wheel_files(wheel))
        home = folder / "clean"
        programs = install(wheel, home)
        restore(programs, home)
        demo(programs, home)


if __name__ == "__main__":
    main()
