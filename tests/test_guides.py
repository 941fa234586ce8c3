"""Guides: means of restorations, and real restoration networks from real files."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from conftest import SmoothDenoiser
from deqir import operators
from deqir.errors import DeqirError, OptionError, ShapeError, UnsupportedCheckpointError
from deqir.guides import mean_guide, network_guide
from deqir.restoration import Restorer


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A tiny ESRGAN that enlarges twice, with random weights."""
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(0)
    network = ESRGAN(in_nc=3, out_nc=3, num_filters=4, num_blocks=1, scale=2)
    file = tmp_path_factory.mktemp("guide") / "esrgan.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, file)
    return file


def test_a_network_enlarges_the_observation(weights):
    y = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    guide = network_guide(weights, y, (16, 12))
    assert guide.shape == (2, 3, 16, 12)
    assert not torch.allclose(guide[0], guide[1])
    torch.testing.assert_close(network_guide(weights, y[:1], (16, 12)), guide[:1], rtol=1e-4, atol=1e-5)
    assert network_guide(weights, y[:, :1], (16, 12)).shape == (2, 1, 16, 12)


def test_what_does_not_fit_is_one_sentence(weights, tmp_path):
    y = torch.rand(1, 3, 8, 8)
    with pytest.raises(ShapeError, match="enlarges 2 times"):
        network_guide(weights, y, (32, 32))
    with pytest.raises(ShapeError, match="takes 3 channels"):
        network_guide(weights, torch.rand(1, 2, 8, 8), (16, 16))
    with pytest.raises(UnsupportedCheckpointError, match="not a file"):
        network_guide(tmp_path / "missing.pth", y, (16, 16))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nonsense")
    with pytest.raises(UnsupportedCheckpointError, match="no restoration network"):
        network_guide(broken, y, (16, 16))


def test_a_missing_spandrel_is_named(monkeypatch, weights):
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    with pytest.raises(DeqirError, match=r'pip install "deqir\[guides\]"'):
        network_guide(weights, torch.rand(1, 3, 8, 8), (16, 16))


def test_the_mean_guide_is_closer_to_every_restoration_than_they_are_to_each_other():
    operator = operators.SuperResolution(4)
    y = operator.forward(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    restorer = Restorer(SmoothDenoiser(), operator, steps=5, solver="serial")
    single = [restorer.restore(y, [seed]).image.clamp(0, 1) for seed in (3, 4)]
    mean = mean_guide(restorer, y, (3, 4))
    torch.testing.assert_close(mean, (single[0] + single[1]) / 2)
    with pytest.raises(OptionError, match="at least one seed"):
        mean_guide(restorer, y, ())
