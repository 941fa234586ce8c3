"""The overlays that a report shows where they are asked for: what decided a region, and how far seeds differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deqir.errors import OptionError
from deqir.jobs import Finished
from deqir.overlays import outlined
from deqir.records import finite_or_none
from deqir.sensitivity import Region, explain, uncertainty


@dataclass(frozen=True)
class Overlays:
    """What to show over the pictures: what decided ``region``, by ``probes``, and the spread over ``seeds``.

    None, the default of both, leaves the one or the other out. Raises OptionError for fewer than two seeds.
    """

    region: Region | None = None
    seeds: int | None = None
    probes: int = 8

    def __post_init__(self) -> None:
        if self.seeds is not None and self.seeds < 2:
            raise OptionError(f"the uncertainty is asked for over {self.seeds} seeds; a spread needs at least 2")

    def check(self, size: tuple[int, int]) -> None:
        """Raise OptionError where the region reaches beyond an image of ``size`` (H, W)."""
        if self.region is not None:
            self.region.mask(size)

    def draw(self, finished: Finished) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The overlays (3, h, w) in [0, 1] by name, ``decided``, ``noise`` and ``spread``, and the figures for them.

        Sensitivity costs one more restoration and its gradient, for all probes in one batch, the spread one for all
        seeds.
        """
        problem, restorer, seed = finished.problem, finished.restorer, int(finished.record["seed"])
        image = finished.result.image[0].detach().cpu()
        mask = None if self.region is None else self.region.mask(problem.shape[1:])
        pictures: dict[str, Tensor] = {}
        figures: dict[str, Any] = {}
        if mask is not None:
            found = explain(restorer, problem.y, mask, seed, self.probes)
            decided = found.over_observation(problem.y, mask)
            pictures |= {} if decided is None else {"decided": decided}
            pictures["noise"] = found.over_image(mask)
            strongest = {"observed": found.observation, "noise": found.noise}
            figures |= {"region": str(self.region), "probes": self.probes}
            figures |= {f"strongest_{key}": finite_or_none(float(values.max())) for key, values in strongest.items()}
        if self.seeds is not None:
            spread = uncertainty(restorer, problem.y, self.seeds, seed)
            shown = spread.over_image(image)
            pictures["spread"] = shown if mask is None else outlined(shown, mask)
            figures |= {"seeds": self.seeds, "image_spread": finite_or_none(float(spread.level.mean()))}
            if mask is not None:
                figures["region_spread"] = finite_or_none(float((spread.level * mask).sum() / mask.sum()))
        return pictures, figures
