"""What mkdocs adds to the pages: the examples, the benchmark results that pages point to, and marks on short code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "benchmarks/results"
UNBROKEN = 24  # characters
PICTURES = (".png", ".jpg")
PRINTED = "It printed, with the built-in prior on a CPU that other work shared:"


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every example, and the files of benchmark results."""
    for script in sorted((ROOT / "examples").glob("*.py")):
        files.append(File.generated(config, f"examples/{script.stem}.md", content=example_page(script)))
    for result in sorted((ROOT / RESULTS).iterdir()):
        uri = f"{RESULTS}/{result.name}.txt"  # as text: the results are files to read, not pages of the book
        files.append(File.generated(config, uri, content=result.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links that leave docs/ in the repository at the copies in the site."""
    return re.sub(rf"\]\(\.\./({RESULTS}/[\w.-]+)\)", r"](\1.txt)", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Mark short inline code, which the style sheet does not break."""
    return re.sub(rf"(?<!<pre>)<code>(?=[^<]{{1,{UNBROKEN}}}</code>)", '<code class="short">', html)


def example_page(script: Path) -> str:
    """A page with the script's docstring, how to run it, what was kept of a run, printed and drawn, and the script."""
    source = script.read_text(encoding="utf-8")
    title, _, text = (ast.get_docstring(ast.parse(source)) or script.stem).partition("\n")
    code = source[source.index('"""', 3) + 3 :].strip()
    run = f"    python examples/{script.name}"
    parts = [f"# {title.rstrip('.')}\n{text}", run, *kept(script.stem), f"```python\n{code}\n```"]
    return "\n\n".join(parts) + "\n"


def kept(stem: str) -> list[str]:
    """What is kept of a run of the example: what it printed, and its pictures, each a link to itself in full size."""
    images = ROOT / "docs" / "images"
    printed = images / f"{stem}.txt"
    parts = [f"{PRINTED}\n\n```text\n{printed.read_text(encoding='utf-8').rstrip()}\n```"] if printed.exists() else []
    pictures = sorted(path for path in images.glob(f"{stem}-*") if path.suffix in PICTURES)
    return parts + [f"[![{path.stem}](../images/{path.name})](../images/{path.name})" for path in pictures]
