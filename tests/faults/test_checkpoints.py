"""Checkpoints cut off or changed at many places: refused in one sentence, or read, never a crash."""

import hashlib
import random
import shutil

import pytest
import torch
from moments import happened

from conftest import tiny_unet
from deqir.errors import DeqirError, UnsupportedCheckpointError
from deqir.priors import load_prior

PLACES = 24
FORMATS = ("safetensors", "zip", "legacy")
TRUNCATED = [(kind, part) for kind in FORMATS for part in range(PLACES)]
FLIPPED = [(kind, seed) for kind in FORMATS for seed in range(PLACES)]


@pytest.fixture(scope="module")
def pristine(prior_folder, tmp_path_factory):
    """The folder of a prior, with its weights in each format."""
    folders = {}
    state = tiny_unet().state_dict()
    for kind in FORMATS:
        folder = tmp_path_factory.mktemp("pristine") / kind
        shutil.copytree(prior_folder, folder)
        if kind != "safetensors":
            (folder / "diffusion_pytorch_model.safetensors").unlink()
            weights = folder / "diffusion_pytorch_model.bin"
            torch.save(state, weights, _use_new_zipfile_serialization=kind == "zip")
        folders[kind] = folder
    return folders


def damaged(folder, change, fault):
    weights = next(folder.glob("diffusion_pytorch_model.*"))
    pristine = weights.read_bytes()
    changed = change(pristine)
    assert changed != pristine
    happened(fault, weights.suffix, hashlib.sha256(changed).hexdigest())
    weights.write_bytes(changed)
    try:
        return load_prior(folder)
    finally:
        weights.write_bytes(pristine)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_whole_file_is_read(pristine, kind):
    assert load_prior(pristine[kind]).channels == 3


@pytest.mark.parametrize(("kind", "part"), TRUNCATED)
def test_a_file_cut_off_is_refused(pristine, kind, part):
    with pytest.raises(UnsupportedCheckpointError) as caught:
        damaged(pristine[kind], lambda data: data[: len(data) * part // PLACES], "cut off")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "seed"), FLIPPED)
def test_a_file_with_changed_bytes_is_refused_or_read(pristine, kind, seed):
    dice = random.Random(seed)

    def change(data):
        changed = bytearray(data)
        where = range(400) if seed % 2 else range(len(data))  # half of them in the header
        for position in dice.sample(where, 8):
            changed[position] ^= 1 << dice.randrange(8)
        return bytes(changed)

    message = ""
    try:
        assert damaged(pristine[kind], change, "changed bits").channels == 3
    except DeqirError as error:
        message = str(error)
    assert "\n" not in message
