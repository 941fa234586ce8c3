"""Mutate operators, chain, solvers and adjoints, and count what the tests notice, with mutmut.

    pip install ".[test,mutation]"
    python tests/mutation/run.py --sample 500 --seed 0 --out mutation.json     # without --sample: all mutants, hours

Run it in the root of the repository; ``mutants/`` is mutmut's. ``mutmut show NAME`` prints a survivor.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from mutmut.stats import status_by_exit_code

MUTANTS = Path("mutants")
FIRST = "deqir.operators.unobserved.*"
"""A few quick mutants: running them makes all the others and finds the tests of every function."""

NOTICED = ("killed", "timeout", "segfault")


def mutmut(names: list[str], children: int) -> None:
    """``mutmut run`` of the mutants ``names``; it leaves its verdicts in its own files."""
    subprocess.run(["mutmut", "run", "--max-children", str(children), *names], check=True, stdout=sys.stderr)


def verdicts() -> dict[str, str]:
    """Every mutant and what became of it."""
    found = {}
    for path in MUTANTS.rglob("*.meta"):
        for name, code in json.loads(path.read_text())["exit_code_by_key"].items():
            found[name] = status_by_exit_code[code]
    return found


def module(name: str) -> str:
    """The module of a mutant: deqir.solvers.base of deqir.solvers.base.x_solve__mutmut_3."""
    return name.rsplit(".", 1)[0]


def has_tests(name: str, tests: dict[str, list[str]]) -> bool:
    """Whether a test calls the function of this mutant."""
    return bool(tests.get(name.partition("__mutmut_")[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, help="mutants drawn at random (all of them without it)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--children", type=int, default=1, help="mutants at a time")
    parser.add_argument("--out", type=Path, default=Path("mutation.json"))
    given = parser.parse_args()
    mutmut([FIRST], given.children)
    every = sorted(verdicts())
    chosen = every if given.sample is None else random.Random(given.seed).sample(every, given.sample)
    tests = json.loads((MUTANTS / "mutmut-stats.json").read_text())["tests_by_mangled_function_name"]
    mutmut([name for name in chosen if has_tests(name, tests)], given.children)
    found = verdicts()
    outcome = {name: found[name] if has_tests(name, tests) else "no tests" for name in chosen}
    counts = Counter(outcome.values())
    noticed = sum(counts[kind] for kind in NOTICED)
    summary = {
        "mutants": len(every),
        "sample": len(chosen),
        "seed": given.seed,
        "noticed": f"{noticed / len(chosen):.1%}",
        "counts": dict(counts),
        "modules": {name: dict(Counter(outcome[m] for m in chosen if module(m) == name)) for name in
                    sorted({module(m) for m in chosen})},
        "survivors": sorted(m for m in chosen if outcome[m] not in NOTICED),
    }  # fmt: skip
    given.out.write_text(json.dumps(summary, indent=2) + "\n")
    print(f"{noticed} of {len(chosen)} mutants noticed, {summary['noticed']}")


if __name__ == "__main__":
    main()
