"""Compiled networks: the same predictions, in batches of few sizes."""

import shutil

import pytest
import torch
from packaging.version import Version

from conftest import sentence, tiny_unet
from deqir import Restorer, load_prior
from deqir.errors import DeviceError, OptionError
from deqir.operators import SuperResolution
from deqir.priors import CompiledNetwork, DiffusersDenoiser, compiled
from deqir.priors.compilation import static_batch
from deqir.schedule import NoiseSchedule


@pytest.fixture(autouse=True)
def forgotten():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def prior_of(network=None):
    return DiffusersDenoiser(tiny_unet(), NoiseSchedule.linear(), "v_prediction", "tiny", network=network)


def batch(count, side=8):
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 3, side, side, generator=generator), torch.arange(count) * 7 % 1000


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
@pytest.mark.skipif(Version(torch.__version__) < Version("2.6"), reason="torch 2.5 fails an assertion of its own")
def test_compiled_for_real():
    """The graph that inductor builds, in a whole restoration."""
    plain = prior_of()
    quick = compiled(plain, "default")
    assert quick.name == plain.name and quick.tile_size == plain.tile_size
    x, timesteps = batch(3)
    torch.testing.assert_close(quick(x, timesteps), plain(x, timesteps), rtol=1e-4, atol=1e-5)
    y = torch.rand(3, 3, 4, 4)  # in calls of three, which are the one size that is compiled
    options = {"steps": 5, "device": "cpu", "solver": "preconditioned", "max_batch": 3}
    ours, theirs = (Restorer(prior, SuperResolution(2), **options).restore(y) for prior in (quick, plain))
    torch.testing.assert_close(ours.image, theirs.image, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own, in tracing
def test_gradients_pass_through():
    model, (x, timesteps), gradients = tiny_unet(), batch(3), []
    for network in (None, CompiledNetwork(model, None, "eager")):
        leaf = x.clone().requires_grad_()
        prior = DiffusersDenoiser(model, NoiseSchedule.linear(), "v_prediction", "tiny", network=network)
        gradients += torch.autograd.grad(prior(leaf, timesteps).square().sum(), leaf)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_few_shapes_reach_the_graph():
    """Whatever the number of images; and results of the copies that fill a batch are not seen."""
    seen = []

    def backend(module, examples):
        def run(*inputs):
            seen.append(max(len(v) for v in inputs if isinstance(v, torch.Tensor) and v.ndim == 4 and v.shape[2] == 8))
            return module.forward(*inputs)

        return run

    plain, model = prior_of(), tiny_unet()
    network = CompiledNetwork(model, None, backend)
    for count in (1, 2, 3, 4, 5, 11):
        x, timesteps = batch(count)
        quick = DiffusersDenoiser(model, plain.schedule, "v_prediction", "tiny", network=network)(x, timesteps)
        torch.testing.assert_close(quick, plain(x, timesteps), rtol=1e-4, atol=1e-5)
    assert set(seen) <= {1, 4, 16}


def test_the_sizes_of_batches():
    sizes = {1: 1, 2: 4, 4: 4, 5: 16, 16: 16, 17: 32, 33: 64, 100: 128, 128: 128}
    assert {count: static_batch(count) for count in sizes} == sizes


def test_a_result_is_not_the_graphs_own_memory():
    network = CompiledNetwork(tiny_unet(), None, "eager")
    kept = torch.zeros(4, 3, 8, 8)
    network._run = lambda *inputs: kept
    first = network(*batch(3))
    kept += 1
    assert first.shape == (3, 3, 8, 8) and (first == 0).all()


def test_where_torch_cannot_compile():
    def backend(module, examples):
        raise RuntimeError("no compiler\nlong trace")

    x, timesteps = batch(1)
    prior = prior_of(CompiledNetwork(tiny_unet(), None, backend))
    with pytest.raises(DeviceError, match=r"torch.compile failed on cpu: .*; leave compile out"):
        prior(x, timesteps)


def test_other_errors_stay_what_they_are():
    network = CompiledNetwork(tiny_unet(), None, "eager")

    def full(*inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    network._run = full
    with pytest.raises(torch.OutOfMemoryError):
        network(*batch(1))


def test_what_cannot_be_compiled():
    with pytest.raises(OptionError, match="compile is 'fast'; choose one of default, reduce-overhead, max-autotune"):
        load_prior(compile="fast")
    with pytest.raises(OptionError, match="compile does not apply to the prior"):
        load_prior(lambda x, t: x, channels=3, compile="default")


def test_on_the_command_line(deqir, photo, tmp_path):
    code, _, err = deqir("restore", photo, "--task", "sr", "--out", tmp_path / "out", "--prior-option", "compile=fast")
    assert code == 2 and "compile is 'fast'" in sentence(err)
    assert not (tmp_path / "out").exists()
