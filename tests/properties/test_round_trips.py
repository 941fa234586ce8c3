"""What is written is read again: observations, images and priors, of any size and content."""

import tempfile
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import shapes

from conftest import tiny_unet
from deqir.images import read_image, write_image
from deqir.observations import Observation, read_observation, write_observation
from deqir.priors import DiffusersDenoiser, load_prior, save_prior
from deqir.schedule import NoiseSchedule

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=9))
json_values = st.recursive(numbers | st.booleans() | st.none(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
metadata = st.dictionaries(st.text(max_size=9), json_values, max_size=4)


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    dtype=st.sampled_from(FLOATS),
    scale=st.sampled_from((0.0, 1.0, 1e4)),
    metadata=metadata,
)
def test_a_safetensors_observation_keeps_every_bit(shape, dtype, scale, metadata):
    value = (scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "y.safetensors")
        write_observation(path, Observation(value, metadata))
        again = read_observation(path)
    assert again.value.dtype == dtype
    assert torch.equal(again.value, value)
    assert again.metadata == metadata


@given(shape=shapes(), metadata=metadata, seed=st.integers(0, 99))
def test_a_png_observation_is_off_by_half_a_level_of_sixteen_bits(shape, metadata, seed):
    value = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "y.png")
        write_observation(path, Observation(value, metadata))
        again = read_observation(path)
    assert float((again.value - value).abs().max()) <= 0.5 / 65535 + 1e-7
    assert again.metadata == metadata


@given(shape=shapes(), suffix=st.sampled_from((".png", ".tif", ".webp")), deep=st.booleans(), seed=st.integers(0, 99))
def test_lossless_images_are_off_by_half_a_level(shape, suffix, deep, seed):
    bits = 16 if deep and suffix != ".webp" else 8
    image = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"image{suffix}")
        write_image(path, image, bits)
        again = read_image(path)
    assert float((again - image).abs().max()) <= 0.5 / (2**bits - 1) + 1e-7


def test_a_saved_prior_gives_the_same_bits(tmp_path):
    for seed, prediction in enumerate(("epsilon", "sample", "v_prediction")):
        channels = 1 + 2 * (seed % 2)
        schedule = NoiseSchedule.cosine(50 + seed)
        prior = DiffusersDenoiser(tiny_unet(seed, channels), schedule, prediction, "tiny")
        again = load_prior(save_prior(prior, tmp_path / prediction))
        x = torch.randn(2, channels, 9, 7, generator=torch.Generator().manual_seed(seed))
        timesteps = torch.tensor([0, 49 + seed])
        with torch.no_grad():
            assert torch.equal(again(x, timesteps), prior(x, timesteps))
        assert torch.equal(again.schedule.alphas_cumprod, schedule.alphas_cumprod)
