"""Class labels and classifier-free guidance."""

import pytest
import torch
from formats import Guided, guided, random_state

from deqir import operators
from deqir.errors import OptionError
from deqir.priors import Denoiser, load_prior, require_label, with_label
from deqir.restoration import Restorer

X, T = torch.randn(2, 3, 8, 8), torch.tensor([10, 900])
CONFIG = Guided(heads=2, classes=4)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("conditional") / "model.pt"
    torch.save(dict(random_state(guided, CONFIG, label=0)), path)
    return path


def load(file, **given):
    return load_prior(file, num_heads=2, **given)


def test_a_label_makes_a_denoiser(file):
    prior = load(file, label=3)
    assert isinstance(prior, Denoiser)
    assert (prior.channels, prior.name) == (3, "model (class 3)")
    y = torch.rand(1, 3, 8, 8)
    result = Restorer(prior, operators.Denoising(), 2, noise=0.1, solver="serial").restore(y)
    assert result.image.isfinite().all()


@torch.no_grad()
def test_guidance_extrapolates_from_the_null_class(file):
    with_class, without = (load(file, label=label)(X, T) for label in (1, 3))
    assert (with_class - without).abs().max() > 1e-3
    for weight in (0.0, 1.0, 2.5):
        guided_prior = load(file, label=1, guidance=weight, null_label=3)
        torch.testing.assert_close(guided_prior(X, T), without + weight * (with_class - without))
    assert guided_prior.name == "model (class 1, guidance 2.5)"


def test_half_precision_keeps_the_class(file):
    half = load(file, label=1).to(torch.device("cpu"), torch.bfloat16)
    with torch.no_grad():
        assert half(X, T).dtype == torch.float32
        assert half.label == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"label": 4}, "label is 4; choose one of the classes 0 to 3"),
        ({"label": -1}, "label is -1"),
        ({"label": "dog"}, "label is 'dog'"),
        ({"label": 1, "guidance": 2.0}, "no class that stands for none, so guidance cannot be computed"),
        ({"label": 1, "guidance": -1.0, "null_label": 3}, "guidance is -1"),
        ({"guidance": 2.0}, "guidance is given without label"),
        ({"label": 1, "null_label": 9}, "null_label is 9"),
    ],
)
def test_labels_that_do_not_fit(file, given, message):
    with pytest.raises(OptionError, match=message):
        load(file, **given)


def test_a_label_is_asked_for(file):
    prior = load(file)
    assert prior.classes == 4
    for ask in (lambda: prior(X, T), lambda: require_label(prior), lambda: Restorer(prior, operators.Denoising())):
        with pytest.raises(OptionError, match="conditional on 4 classes; choose one with label, 0 to 3"):
            ask()


def test_an_unconditional_prior_takes_no_label(network):
    require_label(network)
    with pytest.raises(OptionError, match="not class-conditional; leave label out"):
        with_label(network, 1)
