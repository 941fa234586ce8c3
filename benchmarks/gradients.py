"""What a gradient through a restoration costs, and how right it is: implicit, phantom and unrolled.

    pip install ".[benchmark]"
    python benchmarks/gradients.py --out benchmarks/results            # all rows, about half an hour on a CPU
    python benchmarks/gradients.py --out benchmarks/results --report   # the table from what is there

The loss is the squared distance of the restored image to the photograph, the gradient that of the initial noise and of
the observation. Every row is a process of its own, whose peak memory is counted above that after loading the prior and
one network call with gradients. ``calls`` counts network calls that had to wait for each other, forward and backward
ones, of the whole gradient, its forward solve included; ``evaluations`` the images handed to the network, backward ones
included. ``error`` and ``cosine`` compare with plain backpropagation through the serial chain.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from photos import held_out_photos
from quality import TASKS as QUALITY_TASKS
from safetensors.torch import load_file, save_file

from deqir import ImplicitAdjoint, PhantomGradient, Restorer, UnrolledAdjoint, load_prior
from deqir.adjoints import Adjoint
from deqir.solvers import Solution

TASKS = {task.name: task for task in QUALITY_TASKS.values()}
METHODS = {
    "unrolled": lambda report: UnrolledAdjoint(checkpointing=False),
    "unrolled, checkpointed": lambda report: UnrolledAdjoint(),
    "implicit 1e-2": lambda report: ImplicitAdjoint(tolerance=1e-2, report=report),
    "implicit 1e-3": lambda report: ImplicitAdjoint(tolerance=1e-3, report=report),
    "phantom, one step": lambda report: PhantomGradient(),
    "phantom, 3 steps of 0.5": lambda report: PhantomGradient(3, 0.5),
}
KEYS = ("method", "task", "eta", "steps", "photo", "side", "max_batch")
REFERENCE = "unrolled"
MEGABYTE = 2**20


def measure(case: dict, gradients: Path) -> dict:
    """One gradient, in this process; the gradients themselves go to a file."""
    torch.set_num_threads(1)
    prior, solved = load_prior(), []
    adjoint = METHODS[case["method"]](solved.append)
    truth = held_out_photos(case["side"])[case["photo"]][None]
    operator = TASKS[case["task"]].operator(tuple(truth.shape[1:]))
    y = operator.forward(truth).requires_grad_()
    x_0 = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    warm = prior(x_0, torch.tensor([500])).sum()
    torch.autograd.grad(warm, x_0)
    before = peak_memory()
    serial = isinstance(adjoint, UnrolledAdjoint)
    restorer = Restorer(
        prior,
        operator,
        steps=case["steps"],
        eta=case["eta"],
        solver="serial" if serial else "preconditioned",
        max_batch=case["max_batch"],
    )
    started = time.perf_counter()
    result = restorer.restore(y, initial_noise=x_0, adjoint=adjoint)
    found = torch.autograd.grad((result.image - truth).square().sum(), (x_0, y))
    seconds = time.perf_counter() - started
    save_file({"x_0": found[0], "y": found[1]}, gradients)
    calls, evaluations = costs(adjoint, result.stats, solved, case["steps"])
    memory = (peak_memory() - before) / MEGABYTE
    return {"calls": calls, "evaluations": evaluations, "memory": round(memory, 1), "seconds": round(seconds, 1)}


def costs(adjoint: Adjoint, stats, solved: list[Solution], steps: int) -> tuple[int, int]:
    """Sequential network calls and images, forward and backward, of a whole gradient."""
    if isinstance(adjoint, UnrolledAdjoint):
        return (2 + adjoint.checkpointing) * steps, (2 + adjoint.checkpointing) * steps
    if isinstance(adjoint, PhantomGradient):  # each tracked sweep is checkpointed: twice forward, once backward
        return stats.sweeps[0] + 3 * adjoint.steps, stats.nfe[0] + 3 * adjoint.steps * steps
    (solution,) = solved
    return stats.sweeps[0] + 2 * int(solution.sweeps[0]), stats.nfe[0] + 2 * int(solution.evaluations[0])


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def compare(ours: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> dict:
    """Relative error and cosine of both gradients."""
    figures = {}
    for name, reference in exact.items():
        found, reference = ours[name].double().flatten(), reference.double().flatten()
        if not bool(found.isfinite().all()) or not bool(reference.any()):
            raise SystemExit(f"the gradient of {name} is not finite or zero, so there is no result")
        figures[f"error_{name}"] = float((found - reference).norm() / reference.norm())
        figures[f"cosine_{name}"] = float(found @ reference / (found.norm() * reference.norm()))
    return figures


def run(args: argparse.Namespace, path: Path) -> None:
    """All rows that ``path`` lacks, each in a process of its own."""
    done = {tuple(row[key] for key in KEYS) for row in read(path)}
    for steps, photo, task, eta in itertools.product(args.steps, args.photos, args.tasks, args.eta):
        with tempfile.TemporaryDirectory() as folder:
            exact: dict[str, torch.Tensor] | None = None
            for method in args.methods:
                values = (method, task, eta, steps, photo, args.side, args.max_batch)
                if values in done:
                    continue
                case = dict(zip(KEYS, values, strict=True))
                gradients = Path(folder) / "gradients.safetensors"
                row = case | child(case, gradients)
                found = load_file(gradients)
                exact = found if method == REFERENCE else exact
                if exact is not None:
                    row |= compare(found, exact)
                with path.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
                print(row, flush=True)


def child(case: dict, gradients: Path) -> dict:
    """The figures of ``case``, from a fresh process."""
    command = [sys.executable, __file__, "--case", json.dumps(case), "--gradients", str(gradients)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def read(path: Path) -> list[dict]:
    """The rows so far; a line that an interrupt cut short is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def report(path: Path, out: Path) -> None:
    """gradients.md: one table, a row a case."""
    rows = read(path)
    if not rows:
        raise SystemExit(f"{path} holds no rows; run the benchmark first")
    titles = ("task", "eta", "S", "adjoint", "calls", "evaluations", "MB", "s", "error x_0", "cosine x_0", "cosine y")
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in sorted(rows, key=lambda row: (row["photo"], row["task"], row["eta"], row["steps"])):
        figures = [row.get(key, math.nan) for key in ("error_x_0", "cosine_x_0", "cosine_y")]
        cells = [row[key] for key in ("task", "eta", "steps", "method", "calls", "evaluations", "memory", "seconds")]
        cells += ["-" if math.isnan(value) else f"{value:.4f}" for value in figures]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    first = rows[0]
    setting = f"Crops of {first['side']} pixels, at most {first['max_batch']} images in one network call, one thread."
    text = f"# Gradients\n\n{setting} See benchmarks/gradients.py.\n\n" + "\n".join(lines) + "\n"
    (out / "gradients.md").write_text(text)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--report", action="store_true", help="only write the table")
    parser.add_argument("--photos", nargs="+", default=["coffee"])
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--max-batch", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 100])
    parser.add_argument("--eta", type=float, nargs="+", default=[0.0, 0.85])
    parser.add_argument("--tasks", nargs="+", default=["sr", "inpaint"], choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--gradients", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(args.case, args.gradients)))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "gradients.jsonl"
    if not args.report:
        run(args, path)
    report(path, args.out)


if __name__ == "__main__":
    main()
