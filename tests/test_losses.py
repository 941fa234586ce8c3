"""Losses: each is zero or least where it should be, differentiable, one number an image, and clear about bad input."""

from __future__ import annotations

import pytest
import torch

from deqir import operators
from deqir.errors import DeqirError, NonFiniteError, OptionError, ShapeError
from deqir.losses import (
    Candidate,
    CustomLoss,
    Distance,
    EmbeddingDistance,
    Gaussianity,
    HighFrequencyEnergy,
    MeasurementConsistency,
    PaletteDistance,
    Perceptual,
    Sharpness,
    TotalVariation,
)

OPERATOR = operators.SuperResolution(2)


def photo(seed=0, count=2, size=(8, 8)):
    return torch.rand(count, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def candidate(image, noise=None):
    noise = (
        torch.randn(image.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        if noise is None
        else noise
    )
    return Candidate(image, noise, OPERATOR.forward(photo()), OPERATOR)


def encode(images):
    return torch.stack([images.mean((1, 2, 3)), images.square().mean((1, 2, 3))], 1)


LOSSES = {
    "distance": Distance(photo(3, 1)),
    "region": Distance(photo(3, 1), region=(torch.arange(64).view(8, 8) % 3 == 0).double()),
    "below": Distance(photo(3, 1), below=0.2),
    "palette": PaletteDistance(photo(3, 1, (5, 9)), directions=4),
    "measurement": MeasurementConsistency(),
    "variation": TotalVariation(),
    "frequency": HighFrequencyEnergy(0.2),
    "sharpness": Sharpness(photo(3, 1), 1.25),
    "gaussianity": Gaussianity(),
    "embedding": EmbeddingDistance(encode, torch.tensor([[0.3, 0.9]])),
    "custom": CustomLoss(lambda c: c.image.square().mean((1, 2, 3))),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_a_loss_is_one_differentiable_number_an_image(loss):
    image = photo(2).requires_grad_()
    noise = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    value = loss(candidate(image, noise))
    assert value.shape == (2,)
    assert value.isfinite().all()
    alone = loss(Candidate(image[1:], noise[1:], OPERATOR.forward(photo())[1:], OPERATOR))
    torch.testing.assert_close(alone, value[1:])
    assert torch.autograd.gradcheck(lambda x, n: loss(candidate(x, n)), (image, noise))


def test_distances_vanish_at_the_guide_alone():
    guide = photo(4)
    assert not Distance(guide)(candidate(guide)).any()
    assert not Distance(guide, below=0.1)(candidate(guide)).any()
    assert (Distance(guide)(candidate(guide + 0.1)) - 0.01).abs().max() < 1e-12
    region = torch.zeros(8, 8)
    region[2:4, 3:5] = 1
    outside = guide.clone()
    outside[..., 5:, :] += 1
    assert not Distance(guide, region)(candidate(outside)).any()
    assert (Distance(guide, region)(candidate(guide + 0.1)) - 0.01).abs().max() < 1e-7


def test_a_blurred_guide_says_little_about_fine_detail():
    guide = photo(4)
    fine = guide + 0.1 * (torch.arange(8) % 2 * 2 - 1)
    coarse = guide + 0.1
    below = Distance(guide, below=0.1)
    assert (below(candidate(fine)) < 1e-3 * below(candidate(coarse))).all()


def test_a_palette_is_that_of_the_photo_wherever_its_colours_are():
    image = photo(5, 1)
    shuffled = image.flatten(2)[..., torch.randperm(64, generator=torch.Generator().manual_seed(0))].view(1, 3, 8, 8)
    assert PaletteDistance(image)(candidate(shuffled)) < 1e-20
    assert PaletteDistance(image)(candidate(image.flip(1))) > 1e-4
    brighter = PaletteDistance(image)(candidate(image + 0.2))
    assert brighter < 1e-20
    assert PaletteDistance(image, chroma_only=False)(candidate(image + 0.2)) > 1e-3


def test_measurement_consistency_is_zero_for_what_made_the_observation():
    assert not MeasurementConsistency()(candidate(photo())).any()
    assert MeasurementConsistency()(candidate(photo() + 0.1)).min() > 0.009


def test_smooth_images_vary_less_and_hold_fewer_high_frequencies():
    rough = photo(6)
    smooth = torch.full_like(rough, 0.5)
    for loss in (TotalVariation(), HighFrequencyEnergy(0.2)):
        assert (loss(candidate(smooth)) < 0.1 * loss(candidate(rough))).all()


def test_gaussian_noise_is_more_gaussian_than_anything_else():
    noise = torch.randn(1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    blurred = (noise + noise.roll(1, -1)) / 2**0.5
    own = Gaussianity()(candidate(photo(0, 1), noise))
    for other in (1.3 * noise, noise + 0.3, blurred):
        assert Gaussianity()(candidate(photo(0, 1), other)) > 3 * own


def test_bad_guides_and_functions_are_one_sentence():
    for bad, match in (
        (lambda: Distance(photo()[0]), "guide has shape"),
        (lambda: Distance(photo(0, 1, (9, 8)))(candidate(photo())), "same size"),
        (lambda: Distance(photo(0, 3))(candidate(photo())), "same size"),
        (lambda: PaletteDistance(photo()[:, :1]), "colour photo"),
        (lambda: PaletteDistance(photo())(candidate(photo()[:, :1])), "grey"),
        (lambda: CustomLoss(lambda c: c.image)(candidate(photo())), "returned"),
        (lambda: CustomLoss(lambda c: 1.0)(candidate(photo())), "returned float"),
        (lambda: EmbeddingDistance(encode, torch.ones(1, 3))(candidate(photo())), "encode"),
    ):
        with pytest.raises(ShapeError, match=match):
            bad()
    for bad in (lambda: Distance(photo() * torch.nan), lambda: PaletteDistance(photo() * torch.inf)):
        with pytest.raises(NonFiniteError, match="finite"):
            bad()
    for bad in (
        lambda: Distance(photo(), torch.zeros(8, 8)),
        lambda: Distance(photo(), below=0),
        lambda: PaletteDistance(photo(), 0),
        lambda: HighFrequencyEnergy(0.7),
        lambda: Perceptual(photo(), "resnet"),
    ):
        with pytest.raises(OptionError, match=r"choose|mark"):
            bad()


def test_perceptual_distance_without_weights_says_so(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(DeqirError, match=r"weights of LPIPS .* not on this machine"):
        Perceptual(photo(0, 1, (32, 32)))


def test_perceptual_distance_with_weights(monkeypatch):
    """The network with random weights: the plumbing alone, ranges and gradients."""
    import torchvision

    build = torchvision.models.alexnet
    monkeypatch.setattr("torchvision.models.alexnet", lambda weights=None, **rest: build(weights=None))
    torch.manual_seed(0)
    guide = photo(8, 1, (64, 64)).float()
    loss = Perceptual(guide)
    other = photo(9, 2, (64, 64)).float().requires_grad_()
    value = loss(Candidate(other, other, other, OPERATOR))
    assert value.shape == (2,)
    assert (value > 0).all()
    assert torch.autograd.grad(value.sum(), other)[0].any()
    assert loss(Candidate(guide, guide, guide, OPERATOR)).abs().max() < 1e-6


def test_sharpness_wants_its_share_of_the_reference_and_nothing_else():
    reference = photo(10, 1)
    for ratio in (0.5, 1.0, 2.0):
        wanted = 0.5 + ratio**0.5 * (reference - 0.5)
        loss = Sharpness(reference, ratio)
        assert loss(candidate(wanted)) < 1e-9
        assert loss(candidate(0.5 + 1.3 * (wanted - 0.5))) > 0.2
    with pytest.raises(OptionError, match="ratio"):
        Sharpness(reference, 0)
