"""Quality against cost: serial chains of few to many steps, and a parallel solve after each of its sweeps.

    pip install ".[benchmark,report]"
    python benchmarks/cost.py --out benchmarks/results

PSNR and SSIM to the truth over sequential network calls and over all network evaluations, for super-resolution x4 and
50 % inpainting of 64-pixel centre crops of five photographs that the built-in prior never saw (seed 0, float32). The
parallel solve is of the chain of ``PARALLEL`` steps; stopped early, it gives what it has. Goes on where an earlier run
ended. Writes cost.jsonl (a line a point), cost.md (means over the photographs) and cost.png.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import torch
from photos import held_out_photos
from torch import Tensor

from deqir import Restorer, load_prior, psnr, ssim
from deqir.images import atomic_write
from deqir.results import Progress
from deqir.tasks import Task

TASKS = {"sr x4": Task("sr", scale=4), "inpainting 50 %": Task("inpaint", hidden=0.5)}
ETAS = (0.0, 0.85)
SERIAL = (5, 10, 15, 20, 35, 50, 75, 100)
PARALLEL, SWEEPS = 100, 12


def scored(image: Tensor, truth: Tensor) -> dict[str, float]:
    """PSNR (dB) and SSIM of one image; a figure that is not finite is refused."""
    image = image.clamp(0, 1)
    figures = {"psnr": float(psnr(image, truth)[0]), "ssim": float(ssim(image, truth)[0])}
    if not all(abs(value) < 1e3 for value in figures.values()):
        raise SystemExit(f"a figure is not finite: {figures}")
    return figures


def points(task: Task, eta: float, truth: Tensor) -> list[dict[str, object]]:
    """Every point of one photograph (1, 3, H, W)."""
    prior, operator = load_prior(), task.operator(tuple(truth.shape[1:]))
    y = operator.forward(truth)
    found: list[dict[str, object]] = []
    for steps in SERIAL:
        result = Restorer(prior, operator, steps, eta, solver="serial").restore(y)
        found.append({"chain": f"serial, {steps}", "sequential": steps, "nfe": steps, **scored(result.image, truth)})

    def after_sweep(progress: Progress) -> None:
        about = {"chain": f"parallel, {PARALLEL}", "sequential": progress.sweep, "nfe": progress.nfe}
        found.append({**about, **scored(progress.image, truth)})

    restorer = Restorer(prior, operator, PARALLEL, eta, solver="preconditioned", max_sweeps=SWEEPS)
    restorer.restore(y, progress=after_sweep)
    return found


def means(records: list[dict]) -> dict[tuple[str, float], dict[tuple[str, int], dict[str, float]]]:
    """Means over the photographs by (task, eta) and (chain, sequential calls), where all photographs have the point.

    A parallel solve that has stopped stays what it is: its last point counts for the sweeps that it did not need.
    """
    by_run: dict[tuple, dict[int, dict]] = defaultdict(dict)
    for record in records:
        run = (record["task"], record["eta"], record["chain"], record["photo"])
        by_run[run][record["sequential"]] = record
    for (*_, chain, _), run in by_run.items():
        if chain.startswith("parallel"):
            for sweep in range(1, SWEEPS + 1):
                run.setdefault(sweep, run[max(run)] if sweep > max(run) else run[sweep])
    gathered: dict = defaultdict(lambda: defaultdict(list))
    for (task, eta, chain, _), run in by_run.items():
        for sequential, record in run.items():
            gathered[task, eta][chain, sequential].append(record)
    return {
        case: {
            point: {key: sum(r[key] for r in rows) / len(rows) for key in ("nfe", "psnr", "ssim")}
            for point, rows in sorted(cells.items(), key=lambda item: (item[0][0].split(",")[0], item[0][1]))
        }
        for case, cells in gathered.items()
    }


def table(cases: dict) -> str:
    lines = ["| task | eta | chain | sequential calls | evaluations | PSNR | SSIM |", "|---|---|---|---|---|---|---|"]
    for (task, eta), cells in cases.items():
        for (chain, sequential), mean in cells.items():
            figures = f"{mean['nfe']:.0f} | {mean['psnr']:.2f} | {mean['ssim']:.4f}"
            lines.append(f"| {task} | {eta} | {chain} | {sequential} | {figures} |")
    return "\n".join(lines) + "\n"


def draw(cases: dict, target: Path) -> None:
    """PSNR over sequential calls and over evaluations, a row a task."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tasks = sorted({task for task, _ in cases}, reverse=True)
    figure, grid = pyplot.subplots(len(tasks), 2, figsize=(9, 3.4 * len(tasks)), squeeze=False, sharey="row")
    for (task, eta), cells in cases.items():
        for kind, marker in (("serial", "o"), ("parallel", "s")):
            chosen = [(n, mean) for (chain, n), mean in cells.items() if chain.startswith(kind)]
            for column, xs in enumerate(([n for n, _ in chosen], [mean["nfe"] for _, mean in chosen])):
                axes = grid[tasks.index(task)][column]
                colour = "C0" if kind == "serial" else "C1"
                style = {"marker": marker, "markersize": 4, "color": colour, "linestyle": "-" if eta else "--"}
                what = "serial chains of 5 to 100 steps" if kind == "serial" else f"one of {PARALLEL}, in parallel"
                axes.plot(xs, [mean["psnr"] for _, mean in chosen], label=f"{what}, eta {eta:g}", **style)
    for row, task in zip(grid, tasks, strict=True):
        for axes, label in zip(row, ("sequential network calls", "network evaluations"), strict=True):
            axes.set(xscale="log", xlabel=label, title=task)
            axes.grid(alpha=0.3)
        row[0].set_ylabel("PSNR to the truth (dB)")
        lows = [mean["psnr"] for (name, _), cells in cases.items() if name == task for mean in cells.values()]
        row[0].set_ylim(bottom=max(min(lows), max(lows) - 8))
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=2, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(target, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--side", type=int, default=64)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    journal = args.out / "cost.jsonl"
    records = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    done = {(record["task"], record["eta"], record["photo"], record["side"]) for record in records}
    for title, task in TASKS.items():
        for eta in ETAS:
            for name, photo in held_out_photos(args.side).items():
                if (title, eta, name, args.side) in done:
                    continue
                about = {"task": title, "eta": eta, "photo": name, "side": args.side}
                with torch.no_grad():
                    records += [{**about, **point} for point in points(task, eta, photo[None])]
                atomic_write(journal, "".join(json.dumps(record) + "\n" for record in records).encode())
                print(title, eta, name, flush=True)
    cases = means([record for record in records if record["side"] == args.side])
    (args.out / "cost.md").write_text(table(cases))
    draw(cases, args.out / "cost.png")


if __name__ == "__main__":
    main()
