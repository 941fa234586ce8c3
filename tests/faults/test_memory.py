"""Memory that runs out at any sweep: the run goes on with smaller batches and gives the same answer."""

from dataclasses import dataclass, field

import pytest
import torch
from moments import happened

from conftest import SmoothDenoiser
from deqir import operators
from deqir.errors import DeviceError
from deqir.restoration import Restorer

SOLVERS = ("serial", "picard", "anderson", "triangular", "preconditioned")
CALLS = range(1, 13)
OUT_OF_MEMORY = [(solver, call) for solver in SOLVERS for call in CALLS]
MESSAGES = {torch.OutOfMemoryError: "CUDA out of memory.", MemoryError: "", RuntimeError: "MPS: out of memory"}


@dataclass
class Shrinking(SmoothDenoiser):
    """From call number ``first`` on there is room for ``room`` images alone."""

    first: int = 1
    room: int = 1
    error: type[Exception] = torch.OutOfMemoryError
    failed: list[int] = field(default_factory=list)

    def __call__(self, x, timesteps):
        predicted = super().__call__(x, timesteps)
        if len(self.calls) >= self.first and len(x) > self.room:
            self.failed.append(len(x))
            raise self.error(MESSAGES[self.error])
        return predicted


def restore(denoiser, solver):
    operator = operators.SuperResolution(2)
    truth = torch.rand(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    restorer = Restorer(denoiser, operator, 12, solver=solver, tolerance=0.0, dtype="float64", max_batch=16)
    return restorer.restore(operator.forward(truth))


@pytest.mark.parametrize(("solver", "call"), OUT_OF_MEMORY)
def test_memory_that_runs_out_at_a_call(solver, call):
    error = list(MESSAGES)[call % 3]
    denoiser = Shrinking(first=call, room=1 + call % 2, error=error)
    result = restore(denoiser, solver)
    assert denoiser.failed
    happened("memory", solver, call)
    assert result.stats.halvings == len(denoiser.failed)
    assert result.stats.max_batch <= denoiser.room
    torch.testing.assert_close(result.image, restore(SmoothDenoiser(), solver).image, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_room_for_one_image_is_one_sentence(solver):
    with pytest.raises(DeviceError, match="cpu ran out of memory, and smaller batches do not help; choose"):
        restore(Shrinking(first=5, room=0), solver)
