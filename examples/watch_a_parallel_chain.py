"""Watch a parallel chain: how all timesteps approach the serial answer at once.

Draws two figures: the distance of every state to the serial chain's, sweep by sweep, and the picture that each way has
after the same number of sequential network calls.

Needs pip install "deqir[benchmark]"; about a minute on one CPU core.
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import deqir
from deqir.chain import SamplingChain, serial_solution
from deqir.demo import demo_photo
from deqir.equilibrium import solve_equilibrium
from deqir.preconditioner import BandedSecant
from deqir.solvers import Picard

GREY_LEVELS = 127.5  # of a state in [-1, 1]


def history(chain: SamplingChain, model: BandedSecant | None) -> list[Tensor]:
    """All states (S, C, H, W) after every sweep, plainly or with predictions that follow the states."""
    sweeps: list[Tensor] = []
    solve_equilibrium(chain, Picard(), 0.5, None, model, lambda report: sweeps.append(report.states[:, 0].clone()))
    return sweeps


def draw_distances(path: Path, serial: Tensor, histories: dict[str, list[Tensor]]) -> None:
    """The distance to the serial states in grey levels: sweeps to the right, the chain downwards."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, len(histories), sharey=True)
    for axis, (name, sweeps) in zip(axes, histories.items(), strict=True):
        errors = torch.stack([(states - serial).square().mean((1, 2, 3)).sqrt() for states in sweeps], dim=1)
        levels = (errors * GREY_LEVELS).clamp(0.01, 100).log10()
        extent = (0.5, len(sweeps) + 0.5, len(serial) + 0.5, 0.5)  # sweeps and states are counted from 1
        picture = axis.imshow(levels.numpy(), extent=extent, aspect="auto", cmap="magma", vmin=-2, vmax=2)
        exact = torch.arange(len(sweeps) + 1) + 0.5
        axis.step(
            exact.tolist(), (exact + 1).tolist(), color="white", where="post"
        )  # exact above, whatever the network
        axis.set(title=f"{name}: {len(sweeps)} sweeps", xlabel="sweep", xlim=extent[:2], ylim=extent[2:])
    axes[0].set_ylabel("state, from noise to image")
    bar = figure.colorbar(picture, ax=axes, label="grey levels to the serial state", ticks=[-2, -1, 0, 1, 2])
    bar.ax.set_yticklabels(["0.01", "0.1", "1", "10", "100"])
    figure.savefig(path, dpi=100)


def draw_pictures(path: Path, serial: Tensor, sweeps: list[Tensor], calls: list[int]) -> None:
    """The state of the serial chain and the last state of the parallel one after the same numbers of calls."""
    figure = Figure(figsize=(1.5 * len(calls), 3.4), layout="constrained")
    axes = figure.subplots(2, len(calls))
    for column, count in enumerate(calls):
        states = (serial[min(count, len(serial)) - 1], sweeps[min(count, len(sweeps)) - 1][-1])
        for axis, state in zip(axes[:, column], states, strict=True):
            axis.imshow((state / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy())
            axis.set(xticks=[], yticks=[])
        axes[0, column].set_title(f"{count} calls" if count > 1 else "1 call", fontsize=9)
    axes[0, 0].set_ylabel("serial")
    axes[1, 0].set_ylabel("parallel")
    figure.savefig(path, dpi=100)


def main(folder: Path = Path(), steps: int = 30, side: int = 64) -> None:
    """Solve one chain three ways and write ``distances.png`` and ``pictures.jpg`` into ``folder``."""
    truth = demo_photo()[..., 60 : 60 + side, 40 : 40 + side]
    operator = deqir.operators.SuperResolution(scale=4)
    restorer = deqir.Restorer(deqir.load_prior(), operator, steps=steps, eta=0.85, device="cpu")
    chain = restorer.chain(operator.forward(truth), seed=0)
    serial = serial_solution(chain, True, None).states[:, 0]
    histories = {"frozen predictions": history(chain, None), "predictions that follow": history(chain, BandedSecant())}
    draw_distances(folder / "distances.png", serial, histories)
    calls = [count for count in (1, 2, 4, 6, 10, 20, 30) if count <= steps]
    draw_pictures(folder / "pictures.jpg", serial, histories["predictions that follow"], calls)


if __name__ == "__main__":
    main()
