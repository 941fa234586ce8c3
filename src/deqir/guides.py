"""Images to be guided by: a reference, the mean of several restorations, or what another restoration network makes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deqir.errors import DeqirError, NonFiniteError, OptionError, ShapeError, UnsupportedCheckpointError
from deqir.restoration import Restorer

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor


def mean_guide(restorer: Restorer, y: Tensor, seeds: Sequence[int] = range(1000, 1008)) -> Tensor:
    """The mean of the restorations of ``y`` (B, ...) with ``seeds``, (B, C, H, W) in [0, 1].

    It estimates the posterior mean, the restoration of least squared error: closer to the truth than each of them, and
    less sharp. Raises OptionError where there is no seed.
    """
    if not seeds:
        raise OptionError("the mean guide needs restorations to average; give at least one seed")
    total: Tensor | None = None
    for seed in seeds:
        image = restorer.restore(y, [seed] * len(y)).image.clamp(0, 1)
        total = image if total is None else total + image
    assert total is not None
    return total / len(seeds)


def network_guide(weights: str | os.PathLike[str], image: Tensor, size: tuple[int, int]) -> Tensor:
    """What the restoration network in the file ``weights`` makes of ``image`` (B, C, h, w) in [0, 1], as (B, C, H, W).

    Any single-image model that spandrel recognises (SwinIR, HAT, Restormer, Real-ESRGAN, SCUNet, ...), from a .pth or
    .safetensors file. ``size`` (H, W) is that of the restored image: the network must enlarge ``image`` to it, or keep
    a size that is right already. A grey image is shown to a colour network three times over. Raises DeqirError where
    spandrel is not installed, UnsupportedCheckpointError for a file that it cannot load, ShapeError for another size.
    """
    model = _load(Path(weights).expanduser())
    grey = image.shape[1] == 1 and model.input_channels == 3
    if not grey and image.shape[1] != model.input_channels:
        raise ShapeError(
            f"the network in {weights} takes {model.input_channels} channels, but the photo has {image.shape[1]}; "
            "choose another network"
        )
    produced = tuple(model.scale * side for side in image.shape[-2:])
    if produced != tuple(size):
        raise ShapeError(
            f"the network in {weights} enlarges {model.scale} times, to {produced[1]} x {produced[0]} pixels, but the "
            f"restored image is {size[1]} x {size[0]}; choose a network for this task"
        )
    with torch.no_grad():
        guide: Tensor = model.to(image.device)(image.float().expand(-1, model.input_channels, -1, -1))
    if not bool(guide.isfinite().all()):
        raise NonFiniteError(f"the network in {weights} gave NaN or infinite values; choose another network")
    return guide.mean(1, keepdim=True) if grey else guide


def _load(file: Path) -> ImageModelDescriptor[Any]:
    try:
        import spandrel
    except ImportError:
        raise DeqirError('guides by other networks need spandrel; pip install "deqir[guides]"') from None
    if not file.is_file():
        raise UnsupportedCheckpointError(f"the guide network {file} is not a file; give a .pth or .safetensors file")
    try:
        model = spandrel.ModelLoader().load_from_file(file)
    except Exception as error:  # readers of foreign files raise nearly anything
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedCheckpointError(
            f"{file} holds no restoration network that spandrel can load ({first_line}); choose another file"
        ) from None
    if not isinstance(model, spandrel.ImageModelDescriptor):
        raise UnsupportedCheckpointError(f"{file} holds a network that needs more than one image; choose another file")
    return model.eval()
