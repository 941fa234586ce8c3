"""Sweeps, network evaluations and agreement with the serial chain, for the parallel solvers.

    pip install ".[benchmark]"
    python benchmarks/solvers.py --out benchmarks/results

For every solver, number of steps and eta, one photograph is restored serially and in parallel from the same noise. The
table gives sweeps and evaluations at the default tolerance (0.5 grey levels), the agreement of that answer with the
serial one (PSNR in dB), and after how many sweeps the last state came within 45 and 54 dB of the serial answer (1.5
and 0.5 grey levels). Writes solvers.json and solvers.md.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from photos import held_out_photos

from deqir import Restorer, load_prior
from deqir.solvers import Anderson, Picard
from deqir.tasks import Task

SOLVERS = {"picard": Picard(), "anderson m=3": Anderson(history_size=3), "preconditioned": "preconditioned"}


def decibels(a: torch.Tensor, b: torch.Tensor) -> float:
    """PSNR between two images in [0, 1]; 150 stands for more than float32 can tell; NaN is an error."""
    value = -10 * math.log10(max(float((a.double() - b.double()).square().mean()), 1e-15))
    if not math.isfinite(value):
        raise SystemExit("the agreement is not finite, so there is no result")
    return value


def measure(restorer: Restorer, y: torch.Tensor, serial: torch.Tensor) -> dict:
    """One parallel run, its image compared with the serial one after every sweep."""
    history: list[float] = []
    started = time.perf_counter()
    result = restorer.restore(y, progress=lambda report: history.append(decibels(report.image, serial)))
    within = {level: next((n + 1 for n, db in enumerate(history) if db >= level), None) for level in (45, 54)}
    return {
        "status": result.status[0].name.lower(),
        "sweeps": result.stats.sweeps[0],
        "nfe": result.stats.nfe[0],
        "agreement_db": round(decibels(result.image, serial), 1),
        "sweeps_to_45_db": within[45],
        "sweeps_to_54_db": within[54],
        "history_db": [round(value, 1) for value in history],
        "seconds": round(time.perf_counter() - started, 1),
    }


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    keys = ("task", "steps", "eta", "solver", "sweeps", "nfe", "agreement_db", "sweeps_to_45_db", "sweeps_to_54_db")
    titles = ("task", "steps", "eta", "solver", "sweeps", "NFE", "agreement dB", "sweeps to 45 dB", "sweeps to 54 dB")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(str(row[key]) for key in keys) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--photo", default="coffee")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 50, 100])
    parser.add_argument("--eta", type=float, nargs="+", default=[0.0, 0.85])
    parser.add_argument("--tasks", nargs="+", default=["sr", "inpaint"])
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=list(SOLVERS))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    truth = held_out_photos(args.side)[args.photo][None]
    prior, rows = load_prior(), []
    for name in args.tasks:
        task = Task(name)
        operator = task.operator(tuple(truth.shape[1:]))
        y = operator.forward(truth)
        for steps in args.steps:
            for eta in args.eta:
                serial = Restorer(prior, operator, steps, eta, solver="serial").restore(y).image
                for solver_name in args.solvers:
                    figures = measure(Restorer(prior, operator, steps, eta, solver=SOLVERS[solver_name]), y, serial)
                    rows.append({"task": name, "steps": steps, "eta": eta, "solver": solver_name, **figures})
                    print({key: value for key, value in rows[-1].items() if key != "history_db"}, flush=True)
                    settings = {"photo": args.photo, "side": args.side}
                    (args.out / "solvers.json").write_text(json.dumps({"settings": settings, "rows": rows}) + "\n")
    (args.out / "solvers.md").write_text(table(rows))


if __name__ == "__main__":
    main()
