"""The documentation builds strictly and asks no other host for anything; the examples in it run."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import deqir
from deqir.images import read_image

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = {path.stem: path for path in (ROOT / "examples").glob("*.py")}
IMAGES = ROOT / "docs" / "images"
SCREENSHOTS = os.environ.get("DEQIR_SCREENSHOTS")  # the folder of the documentation's pictures, to refresh them
LARGEST = 150_000  # bytes of a picture


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation as built by mkdocs, which fails on any warning."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", ROOT / "mkdocs.yml", "-d", folder]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert run.returncode == 0, run.stderr
    assert "MKDOCS_2_WARNING" not in run.stderr
    return folder


def test_no_page_loads_anything_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    assets = r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^\"'>\s]+"
    found = {page.name: re.findall(assets, page.read_text(encoding="utf-8")) for page in pages}
    assert not {page: urls for page, urls in found.items() if urls}
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert styles and not any(re.search(r"(url\(|@import )[\"']?(https?:)?//", style) for style in styles)
    assert not any('class="mermaid"' in page.read_text(encoding="utf-8") for page in pages)  # would load a script


def test_the_reference_has_every_public_name_and_the_site_every_example(site):
    reference = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").rglob("*.html"))
    for name in set(deqir.__all__) - {"__version__", "operators", "solvers"}:
        assert re.search(rf'id="deqir\.[\w.]*{name}"', reference) or f"deqir.{name}" in reference, name
    for name in EXAMPLES:
        assert "highlight" in (site / "examples" / name / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_of_an_example_shows_what_it_printed_or_drew(site, name):
    page = (site / "examples" / name / "index.html").read_text(encoding="utf-8")
    pictures = [path for path in IMAGES.glob(f"{name}-*") if path.suffix in (".png", ".jpg")]
    assert all(path.stat().st_size <= LARGEST and f'href="../../images/{path.name}"' in page for path in pictures)
    printed = IMAGES / f"{name}.txt"
    assert pictures or printed.exists()
    if printed.exists():
        assert printed.read_text(encoding="utf-8").split()[0] in page.split("It printed, with the built-in prior")[1]


@pytest.mark.skipif(SCREENSHOTS is None, reason="runs the examples in full; name the folder in DEQIR_SCREENSHOTS")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_keeps_what_it_shows(tmp_path, name):
    command = [sys.executable, EXAMPLES[name]]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    if run.stdout:
        Path(SCREENSHOTS, f"{name}.txt").write_text(run.stdout, encoding="utf-8")
    drawn = sorted(tmp_path.iterdir())
    for path in [path for path in drawn if "sheet" in path.stem] or drawn:  # a sheet shows the others
        keep_picture(path, Path(SCREENSHOTS, f"{name}-{path.name}"))


def keep_picture(source, target):
    """Copy ``source``, as a JPEG where it is too large for a page."""
    if source.stat().st_size <= LARGEST:
        target.write_bytes(source.read_bytes())
        return
    with Image.open(source) as picture:
        for quality in (85, 75, 65):
            picture.convert("RGB").save(target.with_suffix(".jpg"), quality=quality, optimize=True)
            if target.with_suffix(".jpg").stat().st_size <= LARGEST:
                break


@pytest.fixture
def small(tmp_path, monkeypatch, prior_folder):
    """The tiny prior in the place of the built-in one, a smaller demo photo, and a folder to write into."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deqir.priors.loading.BUILTIN_FOLDER", prior_folder)
    return tmp_path


def test_restore_in_python_runs(small, monkeypatch, capsys):
    monkeypatch.setattr("deqir.demo.REDUCTION", 10)
    runpy.run_path(str(EXAMPLES["restore_in_python"]))
    assert read_image("restored.png").shape == (3, 40, 28)
    printed = capsys.readouterr().out
    assert float(re.search(r"deviation from the observation: (\S+)", printed)[1]) < 1e-4


def test_watch_a_parallel_chain_runs(small):
    pytest.importorskip("matplotlib")
    runpy.run_path(str(EXAMPLES["watch_a_parallel_chain"]))["main"](small, steps=4, side=16)
    for name in ("distances.png", "pictures.jpg"):
        assert read_image(small / name).std() > 0.1


def test_deepinv_side_by_side_runs(small, capsys):
    pytest.importorskip("deepinv")
    runpy.run_path(str(EXAMPLES["deepinv_side_by_side"]))["main"](steps=2, side=16)
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1].strip() for row in rows][-2:] == ["DeqIR, serial", "DeqIR, parallel"]
    assert all(float(row[2]) == float(row[2]) for row in rows)


def test_steer_colours_runs(small, capsys):
    runpy.run_path(str(EXAMPLES["steer_colours"]), run_name="__main__")
    before, after = capsys.readouterr().out.splitlines()[1].split("palette ")[1].split(",")[0].split(" -> ")
    assert float(after) < 0.8 * float(before)
    assert read_image(small / "steered.png").std() > 0.1


def test_fill_like_a_reference_runs(small, capsys):
    runpy.run_path(str(EXAMPLES["fill_like_a_reference"]), run_name="__main__")
    before, after = capsys.readouterr().out.splitlines()[0].split(": ")[1].split(",")[0].split(" -> ")
    assert float(after) < 0.8 * float(before)
    assert read_image(small / "filled.png").std() > 0.1


def test_old_photo_runs(small, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["old_photo.py", "--steps", "6"])
    runpy.run_path(str(EXAMPLES["old_photo"]), run_name="__main__")
    figures = re.findall(r"^(.+): (\S+) dB, SSIM (\S+)", capsys.readouterr().out, re.MULTILINE)
    assert len(figures) >= 4 and all(float(decibels) == float(decibels) for _, decibels, _ in figures)
    for name in ("old-photo.png", "old-photo-mask.png", "old-photo-sheet.png"):
        assert read_image(small / name).std() > 0.01


def test_real_old_photo_runs(small, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["real_old_photo.py", "--steps", "6"])
    runpy.run_path(str(EXAMPLES["real_old_photo"]), run_name="__main__")
    shares = re.findall(r"([\d.]+)% of the photo", capsys.readouterr().out)
    assert 0 < float(shares[0]) < 1 < float(shares[1]) < 5  # what is found, and the brush beside it
    assert read_image(small / "real-old-photo.png").shape == (1, 431, 480)
    for name in ("real-old-photo-mask.png", "real-old-photo-sheet.png"):
        assert read_image(small / name).std() > 0.01


def test_every_example_is_run_here():
    tested = {name for name in EXAMPLES if f"test_{name}_runs" in globals()}
    assert tested == set(EXAMPLES)
