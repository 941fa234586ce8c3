"""Observations on disk: what is written is read back, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deqir.errors import ImageReadError, NonFiniteError, OptionError, OutputError, ShapeError
from deqir.images import read_metadata, write_image
from deqir.observations import Observation, needs_safetensors, read_observation, write_observation

METADATA = {"operator": {"name": "sr", "scale": 4}, "noise_level": 0.05, "seed": 3}


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip_to_sixteen_bits(tmp_path: Path, channels: int) -> None:
    value = torch.rand(channels, 6, 5, generator=torch.Generator().manual_seed(0))
    write_observation(tmp_path / "y.png", Observation(value, METADATA))
    read = read_observation(tmp_path / "y.png")
    assert read.metadata == METADATA == read_metadata(tmp_path / "y.png")
    assert (read.value - value).abs().max() <= 0.5001 / 65535


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 6, 5), (7,), (4, 2, 2), ()])
def test_safetensors_round_trip_is_exact(tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    value = (10 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)
    write_observation(tmp_path / "y.safetensors", Observation(value, METADATA))
    read = read_observation(tmp_path / "y.safetensors")
    assert read.metadata == METADATA == read_metadata(tmp_path / "y.safetensors")
    assert read.value.dtype == dtype and torch.equal(read.value, value)


def test_a_strided_view_with_gradient_is_kept(tmp_path: Path) -> None:
    value = torch.rand(4, 5, 3, requires_grad=True).permute(2, 0, 1)
    write_observation(tmp_path / "y.safetensors", Observation(value))
    assert torch.equal(read_observation(tmp_path / "y.safetensors").value, value)


def test_an_ordinary_image_has_no_metadata(tmp_path: Path) -> None:
    write_image(tmp_path / "y.jpg", torch.zeros(3, 4, 4))
    read = read_observation(tmp_path / "y.jpg")
    assert read.metadata == {} and read.value.shape == (3, 4, 4)


def test_needs_safetensors() -> None:
    assert not needs_safetensors(torch.rand(3, 4, 4))
    assert needs_safetensors(torch.rand(3, 4, 4) + 1)
    assert needs_safetensors(torch.rand(2, 4, 4))
    assert needs_safetensors(torch.rand(12))
    assert needs_safetensors(torch.full((1, 2, 2), torch.nan))
    with pytest.raises(AttributeError):
        Observation(torch.zeros(1)).value = torch.ones(1)  # type: ignore[misc]


@pytest.mark.parametrize("value", [torch.randn(3, 8, 8), torch.rand(12), torch.rand(2, 4, 4)])
def test_a_png_refuses_what_it_cannot_hold(tmp_path: Path, value: torch.Tensor) -> None:
    with pytest.raises(OptionError, match=r"y\.png; use a name that ends in \.safetensors"):
        write_observation(tmp_path / "y.png", Observation(value))
    assert not list(tmp_path.iterdir())


def test_bad_values_and_names(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="NaN"):
        write_observation(tmp_path / "y.safetensors", Observation(torch.tensor([torch.nan])))
    for value in (torch.zeros(2, 0), torch.zeros(3, 4, 4, dtype=torch.int64)):
        with pytest.raises(ShapeError, match="float tensor"):
            write_observation(tmp_path / "y.safetensors", Observation(value))
    with pytest.raises(OptionError, match="suffix"):
        write_observation(tmp_path / "y.jpg", Observation(torch.zeros(3, 4, 4)))
    with pytest.raises(OptionError, match="JSON"):
        write_observation(tmp_path / "y.safetensors", Observation(torch.zeros(3), {"a": torch.zeros(1)}))
    with pytest.raises(OutputError, match="folder does not exist"):
        write_observation(tmp_path / "none" / "y.safetensors", Observation(torch.zeros(3)))
    assert not list(tmp_path.iterdir())


def test_bad_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "y.safetensors"
    with pytest.raises(ImageReadError, match="does not exist"):
        read_observation(path)
    write_observation(path, Observation(torch.rand(100), METADATA))
    whole = path.read_bytes()
    for damaged in (whole[:-20], whole[:30], b"\xff" * 40, b"short"):
        path.write_bytes(damaged)
        for read in (read_observation, read_metadata):
            with pytest.raises(ImageReadError, match="not a readable safetensors file"):
                read(path)
    for tensors, expected in (
        ({"other": torch.zeros(2)}, "no float tensor named 'value'"),
        ({"value": torch.zeros(2, dtype=torch.int32)}, "no float tensor"),
        ({"value": torch.tensor([torch.inf])}, "infinite"),
    ):
        save_file(tensors, path)
        with pytest.raises(ImageReadError, match=expected):
            read_observation(path)
