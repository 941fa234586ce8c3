"""Sweeps, network evaluations and agreement with the serial chain: the published parallel solvers and ours.

    pip install ".[benchmark]"
    python benchmarks/solvers.py --out benchmarks/results                 # the whole grid, hours on a CPU
    python benchmarks/solvers.py --out benchmarks/results --report        # tables and plot from what is there

Every run restores one crop of a photograph the prior never saw, serially and in parallel from the same noise, and
compares the last state with the serial answer after every sweep: within 1.5 grey levels (45 dB) and within 0.5
(54 dB), the default tolerance. ``covered`` counts the runs that said "converged" and were within the tolerance.
The methods are Picard, ParaDiGMS (Picard in a sliding window of 40 states that enter with the last value inside),
per-state Anderson from repeated noise (DEQ-DDIM, DeqIR), triangular Anderson (ParaTAA) and ours ("preconditioned"). A
run is one line of solvers.jsonl; runs that are there are not repeated, so an interrupted benchmark goes on where it
stopped, and several processes may work on different photographs at once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path
from statistics import median

import torch
from photos import held_out_photos
from quality import TASKS as QUALITY_TASKS

from deqir import Restorer, load_prior
from deqir.solvers import Anderson, FixedPointSolver, Picard, TriangularAnderson

TASKS = {task.name: task for task in QUALITY_TASKS.values()}
WINDOW = 40
METHODS: dict[str, str | FixedPointSolver] = {
    "picard": Picard(),
    "paradigms": Picard(window=WINDOW, carry=True),
    "anderson m=3": Anderson(history_size=3),
    "anderson m=5": Anderson(history_size=5),
    "triangular m=3": TriangularAnderson(history_size=3),
    "preconditioned": "preconditioned",
}
COLOURS = {
    "picard": "grey",
    "paradigms": "tab:orange",
    "anderson m=3": "tab:green",
    "anderson m=5": "tab:olive",
    "triangular m=3": "tab:purple",
    "preconditioned": "tab:blue",
}
KEYS = ("method", "task", "eta", "steps", "photo", "spacing", "side")
LEVELS = (45, 54)
TOLERANCE = 0.5


def decibels(a: torch.Tensor, b: torch.Tensor) -> float:
    """PSNR between two images in [0, 1], 150 at most; -200 where an iterate is not finite or far away."""
    error = float((a.double() - b.double()).square().mean())
    return max(-10 * math.log10(max(error, 1e-15)), -200.0) if math.isfinite(error) else -200.0


def measure(restorer: Restorer, y: torch.Tensor, serial: torch.Tensor) -> dict:
    """One parallel run, its image compared with the serial one after every sweep."""
    history: list[float] = []
    costs: list[int] = []

    def watch(report) -> None:
        history.append(decibels(report.image, serial))
        costs.append(report.nfe)

    started = time.perf_counter()
    result = restorer.restore(y, progress=watch)
    error = float((result.image.double() - serial.double()).square().mean().sqrt()) * 255
    if not math.isfinite(error):
        raise SystemExit("a restored image is not finite, so there is no result")
    row = {"status": result.status[0].name.lower(), "sweeps": result.stats.sweeps[0], "nfe": result.stats.nfe[0]}
    row |= {"error": error, "estimated_error": float(result.estimated_error[0])}
    for level in LEVELS:
        sweep = next((n + 1 for n, db in enumerate(history) if db >= level), None)
        row |= {f"sweeps_{level}": sweep, f"nfe_{level}": costs[sweep - 1] if sweep else None}
    return row | {"history_db": [round(db, 1) for db in history], "seconds": round(time.perf_counter() - started, 2)}


def run(args: argparse.Namespace, path: Path) -> None:
    """All runs of the grid that ``path`` lacks."""
    rows = read(path)
    done = {tuple(row[key] for key in KEYS) for row in rows}
    prior, photos = load_prior(), held_out_photos(args.side)
    grid = itertools.product(args.steps, args.spacings, args.photos, args.tasks, args.eta)
    for steps, spacing, photo, task, eta in grid:
        wanted = [m for m in args.methods if (m, task, eta, steps, photo, spacing, args.side) not in done]
        if not wanted:
            continue
        truth = photos[photo][None]
        operator = TASKS[task].operator(tuple(truth.shape[1:]))
        y = operator.forward(truth)
        options = {"steps": steps, "eta": eta, "spacing": spacing, "device": args.device}
        serial = Restorer(prior, operator, solver="serial", **options).restore(y).image
        for method in wanted:
            limit = None if method == "preconditioned" else args.max_sweeps
            restorer = Restorer(prior, operator, solver=METHODS[method], max_sweeps=limit, **options)
            values = (method, task, eta, steps, photo, spacing, args.side)
            row = dict(zip(KEYS, values, strict=True)) | measure(restorer, y, serial)
            with path.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print({key: value for key, value in row.items() if key != "history_db"}, flush=True)


def read(path: Path) -> list[dict]:
    """The runs so far; a line that an interrupt cut short is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def middle(rows: list[dict], key: str) -> str:
    """Median and worst of a count; a run that never got there counts as beyond all others."""
    values = [math.inf if row[key] is None else row[key] for row in rows]
    limit = max(row["sweeps"] for row in rows)
    texts = [f"{v:g}" if math.isfinite(v) else f">{limit}" for v in (median(values), max(values))]
    return " / ".join(texts)


def table(rows: list[dict], groups: tuple[str, ...]) -> str:
    """Markdown: median / worst over the runs of every group."""
    titles = (*groups, "runs", "sweeps to 45 dB", "sweeps to 54 dB", "NFE to 45 dB / S", "sweeps to stop", "covered")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in groups), []).append(row)
    for group, members in sorted(found.items(), key=lambda item: tuple(map(str, item[0]))):
        ended = [row for row in members if row["status"] == "converged"]
        held = sum(row["error"] <= TOLERANCE for row in ended)
        relative = [math.inf if row["nfe_45"] is None else row["nfe_45"] / row["steps"] for row in members]
        nfe = f"{median(relative):.1f}" if math.isfinite(median(relative)) else "-"
        cells = (len(members), middle(members, "sweeps_45"), middle(members, "sweeps_54"), nfe)
        cells = (*group, *cells, middle(members, "sweeps"), f"{held} of {len(ended)}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def report(args: argparse.Namespace, path: Path) -> None:
    """solvers.md: ours over the whole grid, then every method on the runs that all of them have."""
    rows = [row for row in read(path) if row["side"] == args.side]
    if not rows:
        raise SystemExit(f"{path} holds no runs of side {args.side}; run the benchmark first")
    ours = [row for row in rows if row["method"] == "preconditioned"]
    case = KEYS[1:]
    cases = [{tuple(row[key] for key in case) for row in rows if row["method"] == m} for m in METHODS]
    common = set.intersection(*cases)
    shared = [row for row in rows if tuple(row[key] for key in case) in common]
    parts = ["# Parallel solvers\n\nMedian / worst over runs; see benchmarks/solvers.py.\n"]
    parts += [
        "## Ours, all runs\n",
        table(ours, ("spacing", "steps")),
        table(ours, ("spacing", "steps", "eta", "task")),
    ]
    if shared:
        parts += ["## All methods, on the runs that all of them have\n", table(shared, ("steps", "eta", "method"))]
        parts += ["By task:\n", table(shared, ("steps", "eta", "task", "method"))]
        draw([row for row in shared if row["spacing"] == "cubic"], args.plot)
    (args.out / "solvers.md").write_text("\n".join(parts))
    print("\n".join(parts))


def curve(rows: list[dict]) -> tuple[list[float], list[float], list[float]]:
    """Least, median and greatest agreement in dB after every sweep; a run that has ended keeps its last value."""
    length = max(len(row["history_db"]) for row in rows)
    padded = [row["history_db"] + row["history_db"][-1:] * (length - len(row["history_db"])) for row in rows]
    columns = list(zip(*padded, strict=True))
    return [min(c) for c in columns], [median(c) for c in columns], [max(c) for c in columns]


def draw(rows: list[dict], target: Path) -> None:
    """Agreement with the serial image after every sweep: one picture a number of steps and eta."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps, etas = sorted({row["steps"] for row in rows}), sorted({row["eta"] for row in rows})
    size = (3.4 * len(steps) + 0.6, 3.0 * len(etas))
    figure = pyplot.figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(etas), len(steps), squeeze=False, sharey=True, sharex=True)
    for (line, eta), (column, count) in itertools.product(enumerate(etas), enumerate(steps)):
        axis = grid[line][column]
        inside = [row for row in rows if row["steps"] == count and row["eta"] == eta]
        for method, colour in COLOURS.items():
            members = [row for row in inside if row["method"] == method]
            if members:
                low, middle_, high = curve(members)
                sweeps, ours = range(1, len(middle_) + 1), method == "preconditioned"
                label, width = ("deqir", 2.4) if ours else (method, 1.2)
                axis.plot(sweeps, middle_, color=colour, label=label, linewidth=width)
                axis.fill_between(sweeps, low, high, color=colour, alpha=0.12, linewidth=0)
        for level in LEVELS:
            axis.axhline(level, color="grey", linewidth=0.6, linestyle=":")
        runs = len(inside) // max(1, len({row["method"] for row in inside}))
        axis.set(title=f"{count} steps, eta {eta:g} ({runs} runs)", ylim=(0, 80), xlim=(1, 24))
        if line == len(etas) - 1:
            axis.set_xlabel("sequential network calls")
    for line in grid:
        line[0].set_ylabel("PSNR to serial (dB)")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize="small")
    figure.savefig(target, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--plot", type=Path, default=Path("docs/images/solvers.png"))
    parser.add_argument("--report", action="store_true", help="only write the tables and the plot")
    parser.add_argument("--photos", nargs="+", default=["astronaut", "coffee", "chelsea", "china", "flower"])
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 50, 100, 250])
    parser.add_argument("--eta", type=float, nargs="+", default=[0.0, 0.85])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--spacings", nargs="+", default=["cubic"])
    parser.add_argument("--max-sweeps", type=int, default=24, help="where the other methods are given up")
    parser.add_argument("--device", default=None)
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "solvers.jsonl"
    if not args.report:
        run(args, path)
    report(args, path)


if __name__ == "__main__":
    main()
