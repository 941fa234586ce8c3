"""What the wheel declares: every package that the source imports, and nothing is borrowed beyond that."""

import importlib
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "deqir"


@pytest.fixture
def declared(monkeypatch):
    """scripts/declared.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    yield importlib.import_module("declared")
    for name in ("declared", "dependencies"):
        sys.modules.pop(name, None)


@pytest.fixture
def requirements():
    """All that pyproject.toml names, as the installed metadata has it."""
    return distribution("deqir").requires


def test_every_import_of_the_source_is_declared(declared, requirements):
    assert declared.undeclared(SOURCE, requirements) == []


@pytest.mark.parametrize(
    ("name", "module"), [("rich", "rich"), ("PyYAML", "yaml"), ("huggingface-hub", "huggingface_hub")]
)
def test_an_import_without_a_requirement_is_named(declared, requirements, name, module):
    others = [text for text in requirements if not text.lower().startswith(name.lower())]
    (found,) = declared.undeclared(SOURCE, others)
    assert f"imports {module}, which pyproject.toml does not name" in found


def test_only_what_is_brought_along_is_borrowed(declared, tmp_path):
    packages = declared.brought(distribution("typer"))
    names = {package.name.lower() for package in packages}
    assert "rich" in names and "torch" not in names
    declared.borrow(packages, tmp_path / "borrowed")
    borrowed = {path.name for path in (tmp_path / "borrowed").iterdir()}
    assert "rich" in borrowed and "torch" not in borrowed
