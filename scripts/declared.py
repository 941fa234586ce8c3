"""What the wheel's metadata declares against what the source imports, and the packages that it brings along."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path

from dependencies import needed
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def imported(source: Path) -> dict[str, str]:
    """Every module that the package in ``source`` imports and that is neither its own nor Python's, with a file."""
    found: dict[str, str] = {}
    for path in sorted(source.rglob("*.py")):
        for name in _modules(ast.parse(path.read_text(encoding="utf-8"))):
            if name != source.name and name not in sys.stdlib_module_names:
                found.setdefault(name, path.relative_to(source.parent).as_posix())
    return found


def _modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def undeclared(source: Path, requirements: Iterable[str]) -> list[str]:
    """One sentence for every import whose package no requirement names, extras included."""
    names = {canonicalize_name(Requirement(text).name) for text in requirements}
    providers = packages_distributions()
    return [
        f"{path} imports {module}, which pyproject.toml does not name"
        for module, path in imported(source).items()
        if names.isdisjoint(map(canonicalize_name, providers.get(module, [module])))
    ]


def brought(package: Distribution) -> list[Distribution]:
    """What ``package`` needs without extras, directly or not, as installed here."""
    found: dict[str, Distribution] = {}
    waiting = [(package, frozenset[str]())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        here, extras = waiting.pop()
        for item in needed(here, set(extras)):
            key = (canonicalize_name(item.name), frozenset(item.extras))
            if key not in seen:
                seen.add(key)
                found[key[0]] = distribution(item.name)
                waiting.append((found[key[0]], key[1]))
    return list(found.values())


def borrow(packages: Iterable[Distribution], folder: Path) -> None:
    """Link the files of ``packages``, and of no others, into ``folder``."""
    folder.mkdir()
    for package in packages:
        for top in {file.parts[0] for file in package.files or () if file.parts[0] not in ("..", "__pycache__")}:
            target = folder / top
            if not target.exists():  # several packages share a namespace
                target.symlink_to(Path(str(package.locate_file(top))))
