"""A restoration toward a reference photo: its initial noise is optimised, then it is restored once more, watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from deqir.images import write_image
from deqir.initialization import Iteration, NoiseOptimizer, Variables
from deqir.jobs import Finished, RestoreJob
from deqir.losses import Distance, Loss, PaletteDistance
from deqir.outputs import refuse_huge
from deqir.problems import Problem
from deqir.results import Progress
from deqir.webui.photos import resized
from deqir.webui.settings import Settings, refuse_whole


@dataclass(frozen=True, eq=False)
class Guided:
    """Restores one file toward ``reference`` (C, H, W) in [0, 1], as ``settings`` say, by ``job``."""

    job: RestoreJob
    settings: Settings
    reference: Tensor

    def run(
        self, file: Path, target: Path, watch: Callable[[Progress], None], told: Callable[[Iteration], None]
    ) -> Finished:
        """Write the result to ``target``; ``told`` hears of the optimisation, ``watch`` of the last restoration.

        Where eta is above zero the noise of every step is optimised with x_0, which such a chain forgets.
        """
        problem, seed = self.job.problem(file), [self.job.seed]
        refuse_huge(problem.shape, file)
        refuse_whole(problem.leave_alone, problem.findings)
        restorer = self.job.restorer(problem)
        loss = self._loss(problem)
        variables: Variables = "all" if self.settings.eta > 0 else "initial"
        search = NoiseOptimizer(restorer, [(1.0, loss)], self.settings.iterations, variables=variables)
        found = search.run(problem.y, seed, told)
        rest = found.noise[1:] if len(found.noise) > 1 else None
        result = restorer.restore(problem.y, seed, watch, initial_noise=found.noise[0], noises=rest)
        record = self.job.record(file, problem, restorer, result)
        losses = found.losses[:, 0].tolist()
        about = {"reference": self.settings.reference, "losses": losses, "stopped": found.stopped}
        write_image(target, result.image[0], attachments=problem.attachments)
        return Finished(problem, restorer, result, {**record, **about})

    def _loss(self, problem: Problem) -> Loss:
        if self.settings.reference == "colours":
            return PaletteDistance(self.reference.expand(3, -1, -1)[None])
        guide = resized(self.reference, problem.shape[1:])[None]
        return Distance(guide if guide.shape[1] == problem.shape[0] else guide.mean(1, keepdim=True))
