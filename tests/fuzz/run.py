"""Fuzz every reader: python tests/fuzz/run.py --inputs 100000 --out fuzz.json

Each reader gets its share of the inputs in a process of its own, with a limit on memory and on the time of one input.
What breaks is kept as a file beside the counts, named after its reader and seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from readers import READERS, attempt, corpus_of, mutate


def fuzz(name: str, inputs: int, kept: Path, seconds: float, limit: float) -> dict[str, object]:
    """Counts of one reader; an input may take ``limit`` seconds, all of them ``seconds`` of processor time."""
    counts: dict[str, object] = {"inputs": 0, "read": 0, "refused": 0, "failed": []}
    signal.signal(signal.SIGALRM, _too_long)
    started = time.process_time()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        seeds = corpus_of(name)
        for number in range(inputs):
            if time.process_time() - started > seconds:
                break
            dice = random.Random(f"{name} {number}")
            seed = dice.choice(sorted(seeds))
            path = Path(folder, f"input{Path(seed).suffix}")
            path.write_bytes(mutate(seeds[seed], dice))
            begun = time.process_time()
            signal.setitimer(signal.ITIMER_REAL, limit)
            try:
                outcome = attempt(READERS[name], path)
                counts[outcome] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                counts["failed"].append(f"{number} {seed}: {type(error).__name__}: {str(error)[:200]}")
                (kept / f"{name}-{number}{path.suffix}").write_bytes(path.read_bytes())
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            counts["inputs"] += 1
            slowest = max(slowest, time.process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return counts | {
        "seconds": round(time.process_time() - started, 1),
        "slowest": round(slowest, 3),
        "MiB": round(peak),
    }


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError("this input took longer than the limit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="in all, spread over the readers")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="of processor time, spread over the readers"
    )
    parser.add_argument("--limit", type=float, default=20.0, help="seconds that one input may take")
    parser.add_argument("--memory", type=float, default=8.0, help="GiB of address space of each process")
    parser.add_argument("--out", type=Path, default=Path("fuzz.json"))
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.reader:
        space = int(given.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        print(json.dumps(fuzz(given.reader, given.inputs, given.out.parent, given.seconds, given.limit)))
        return
    results = {}
    for number, name in enumerate(READERS):
        inputs = (given.inputs + number) // len(READERS)
        share = ["--inputs", str(inputs), "--seconds", str(given.seconds / len(READERS))]
        passed = ["--limit", str(given.limit), "--memory", str(given.memory), "--out", str(given.out), "--reader", name]
        done = subprocess.run([sys.executable, __file__, *share, *passed], stdout=subprocess.PIPE, env=os.environ)
        crashed = {"crashed": done.returncode}
        results[name] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else crashed
        print(name, results[name], flush=True)
    given.out.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(any(result.get("failed", True) for result in results.values()))


if __name__ == "__main__":
    main()
