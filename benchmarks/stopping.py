"""How often a solve that says "converged" is beyond its tolerance, over random small problems.

    python benchmarks/stopping.py --problems 500 --first 0

Half of the images have 1 x 1 to 9 x 9 pixels, half 16 x 16; operator, steps (2 to 30), eta, spacing and how far the
stand-in network is from linear are drawn by the number of the problem. Every solver restores each of them and is
compared with the serial walk. One line for every solve that is off by more than the tolerance, then the counts.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deqir import Restorer, operators
from deqir.operators import LinearOperator
from deqir.schedule import NoiseSchedule

SOLVERS = ("picard", "anderson", "triangular", "preconditioned")
SPACINGS = ("cubic", "quadratic", "leading", "trailing", "linspace")
TASKS = ("sr", "inpaint", "deblur", "cs", "denoise")


@dataclass
class StandIn:
    """The exact denoiser of Gaussian images, bent by a sine."""

    channels: int
    bend: float
    name: str = "stand-in"
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule.linear)

    def __call__(self, x: Tensor, timesteps: Tensor) -> Tensor:
        a = self.schedule.alphas_cumprod[timesteps].to(x.dtype).view(-1, 1, 1, 1)
        mixed = (x + x.roll(1, -1) + x.roll(1, -2)) / 3
        return (1 - a).sqrt() / (0.2 * a + 1 - a) * (x + self.bend * torch.sin(2 * mixed))

    def to(self, device: torch.device, dtype: torch.dtype) -> StandIn:
        return self


@dataclass(frozen=True)
class Problem:
    """One restoration: its number, network, operator, observation and the options that all solvers share."""

    number: int
    task: str
    network: StandIn
    operator: LinearOperator
    y: Tensor
    options: dict

    def solve(self, solver: str, tolerance: float):
        """The result of ``solver``."""
        restorer = Restorer(self.network, self.operator, solver=solver, tolerance=tolerance, **self.options)
        return restorer.restore(self.y, self.number)


def problem(number: int) -> Problem:
    """The problem of that number."""
    dice, generator = random.Random(number), torch.Generator().manual_seed(number)
    sides = (dice.randint(1, 9), dice.randint(1, 9)) if number % 2 == 0 else (16, 16)
    shape, task = (dice.choice((1, 3)), *sides), dice.choice(TASKS)
    operator = forward_operator(task, shape, dice, generator)
    truth = torch.rand((1, *shape), dtype=torch.float64, generator=generator)
    options = {"steps": dice.randint(2, 30), "eta": dice.choice((0.0, 0.5, 0.85, 1.0)),
               "spacing": dice.choice(SPACINGS), "dtype": "float64", "device": "cpu"}  # fmt: skip
    network = StandIn(shape[0], dice.choice((0.0, 0.2, 0.5)))
    return Problem(number, task, network, operator, operator.forward(truth), options)


def forward_operator(
    task: str, shape: tuple[int, int, int], dice: random.Random, generator: torch.Generator
) -> LinearOperator:
    """An operator for images of ``shape``."""
    _, height, width = shape
    if task == "sr":
        return operators.SuperResolution(dice.randint(1, min(4, height, width))).at(shape)
    if task == "inpaint" and height * width > 2:
        return operators.Inpainting(operators.random_mask(height, width, 0.5, generator))
    if task == "deblur":
        return operators.Deblurring(operators.gaussian_kernel(3, 1.5)).at(shape)
    if task == "cs":
        return operators.CompressedSensing(0.5).at(shape)
    return operators.Denoising()


def counts(problems: Iterator[Problem], tolerance: float) -> dict[str, dict[str, float]]:
    """Per solver: solves, those beyond the tolerance, the worst error in grey levels, and network evaluations."""
    found = {name: {"solves": 0, "beyond": 0, "worst": 0.0, "evaluations": 0} for name in SOLVERS}
    for each in problems:
        serial = each.solve("serial", tolerance).image
        for name in SOLVERS:
            result, row = each.solve(name, tolerance), found[name]
            off = float((result.image - serial).square().mean().sqrt()) * 255
            if not math.isfinite(off):
                raise SystemExit(f"problem {each.number} gives no finite image, so there is no result")
            row["solves"] += 1
            row["beyond"] += off > tolerance
            row["worst"] = max(row["worst"], off)
            row["evaluations"] += result.stats.nfe[0]
            if off > tolerance:
                about = f"problem {each.number} ({each.task}, {tuple(serial.shape[1:])}, {each.options['steps']} steps)"
                estimate = float(result.estimated_error[0])
                print(f"{about}, {name}: {off:.2f} grey levels off, {estimate:.2f} estimated")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=0.5, help="in grey levels of 0..255")
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.problems)
    for name, row in counts((problem(number) for number in numbers), given.tolerance).items():
        print(f"{name}: {row['beyond']} of {row['solves']} beyond {given.tolerance} grey levels, "
              f"worst {row['worst']:.2f}, {row['evaluations']} evaluations")  # fmt: skip


if __name__ == "__main__":
    main()
