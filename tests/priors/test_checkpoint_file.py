"""Wrappers around state dicts, and files that must not or cannot be read."""

import argparse
import os
import pickle

import pytest
import torch
from formats import DDPM, ddpm, random_state
from safetensors.torch import save_file

from deqir.errors import UnsupportedCheckpointError
from deqir.priors import load_prior
from deqir.priors.checkpoint_file import network_state, read_checkpoint, state_dicts

ANCHOR = "conv_in.weight"


def prefixed(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


STATE = {ANCHOR: torch.ones(2), "conv_in.bias": torch.ones(1)}
OTHER = {ANCHOR: torch.zeros(2), "conv_in.bias": torch.zeros(1)}
WRAPPERS = {
    "bare": STATE,
    "state_dict": {"state_dict": STATE, "epoch": 3},
    "model beside ema": {"model": OTHER, "ema": STATE},
    "ema_model first": {"ema_state_dict": STATE, "state_dict": OTHER},
    "module.": prefixed("module.", STATE),
    "compiled and wrapped": {"model": prefixed("_orig_mod.module.", STATE)},
    "one flat dict of both": prefixed("model.", OTHER) | prefixed("model_ema.", STATE),
    "lightning with buffers": {"state_dict": prefixed("net.", STATE) | {"betas": torch.zeros(9)}},
    "buffers of its schedule": STATE | {"logvar": torch.zeros(9), "sqrt_alphas_cumprod": torch.zeros(9)},
    "list of states": [prefixed("module.", OTHER), {"state": {0: {"step": 1}}}, 2, 3, STATE],
    "shadow with its decay": {"model": OTHER, "ema": {"decay": torch.tensor(0.9), "shadow": STATE}},
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_averaged_network_is_found_in_every_wrapper(tmp_path, name):
    torch.save(WRAPPERS[name], tmp_path / "file.pt")
    anchor, state = network_state(tmp_path, read_checkpoint(tmp_path / "file.pt"), (ANCHOR,), prefer_ema=True)
    assert anchor == ANCHOR
    assert state.keys() == STATE.keys()
    assert state[ANCHOR].sum() == 2


@pytest.mark.parametrize("name", ["model beside ema", "ema_model first", "one flat dict of both", "list of states"])
def test_the_plain_weights_on_request(name):
    _, state = network_state("file", WRAPPERS[name], (ANCHOR,), prefer_ema=False)
    assert state[ANCHOR].sum() == 0
    assert state.keys() == STATE.keys()


def test_a_stray_tensor_is_kept_to_be_refused():
    _, state = network_state("file", prefixed("module.", STATE) | {"stray.weight": torch.ones(1)}, (ANCHOR,), True)
    assert "stray.weight" in state


def test_containers_are_searched_to_a_depth():
    nested = STATE
    for _ in range(8):
        nested = {"inner": nested}
    assert list(state_dicts(nested)) == []


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_of_torch_save_under_any_name(tmp_path, suffix, zipped):
    torch.save(STATE, tmp_path / f"file{suffix}", _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(tmp_path / f"file{suffix}").keys() == STATE.keys()


def test_safetensors_are_known_by_content(tmp_path):
    save_file(STATE, tmp_path / "misnamed.ckpt")
    assert read_checkpoint(tmp_path / "misnamed.ckpt").keys() == STATE.keys()


class Malicious:
    """Writes a file where it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, how):
    target, file = tmp_path / "written", tmp_path / "file.pt"
    content = {"state_dict": dict(random_state(ddpm, DDPM())), "callback": Malicious(target)}
    if how == "pickle":
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(UnsupportedCheckpointError, match="cannot be read safely") as caught:
        load_prior(file)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    pickle.loads(pickle.dumps(Malicious(target)))
    assert target.exists()  # so the attack was real


def test_the_object_that_is_refused_is_named(tmp_path):
    torch.save({"state_dict": STATE, "args": argparse.Namespace(lr=1)}, tmp_path / "file.pt")
    with pytest.raises(UnsupportedCheckpointError, match=r"refers to argparse.Namespace, which could run code"):
        read_checkpoint(tmp_path / "file.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", bytes(range(256)), b"\x00" * 8 + b"{}"])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(UnsupportedCheckpointError, match=r"file.pt (cannot be read safely|is no model)") as caught:
        load_prior(tmp_path / "file.pt")
    assert "\n" not in str(caught.value)


def test_a_truncated_file(tmp_path):
    torch.save({"a": torch.zeros(5000)}, tmp_path / "file.pt")
    (tmp_path / "file.pt").write_bytes((tmp_path / "file.pt").read_bytes()[:3000])
    with pytest.raises(UnsupportedCheckpointError, match="cannot be read safely"):
        load_prior(tmp_path / "file.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"downs.0.weight": torch.zeros(2)}, "its tensors begin with downs.0.weight"),
        ({"epoch": 3}, "it holds no state dict"),
        (torch.zeros(3), "it holds no state dict"),
    ],
)
def test_an_unknown_model_is_named(tmp_path, content, message):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(UnsupportedCheckpointError, match=message):
        load_prior(tmp_path / "file.pt")
