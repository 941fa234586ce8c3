"""deepinv physics as operators and back, by dense matrices."""

import warnings

import pytest
import torch

from conftest import SHAPE, all_operators
from deqir.errors import OptionError, ShapeError
from deqir.operators import DecomposableOperator, as_operator, check_operator

deepinv = pytest.importorskip("deepinv", reason='deepinv is not installed; run pip install "deqir[deepinv]"')
from deepinv import physics as dp  # noqa: E402

from deqir.integrations.deepinv import as_physics, physics_operator  # noqa: E402

GENERATOR = torch.Generator().manual_seed(0)
MASKS = (torch.rand(2, 1, 8, 8, generator=GENERATOR) > 0.4).float()
KSPACE = (torch.rand(8, 8, generator=GENERATOR) > 0.5).float()
COILS = torch.complex(*(torch.randn(3, 8, 8, generator=GENERATOR) for _ in range(2)))
SKEWED = torch.tensor([[[[0.1, 0.5, 0.1], [0.2, 0.9, 0.0], [0.1, 0.0, 0.3]]]])
BOX = torch.ones(1, 1, 3, 3) / 9

DECOMPOSABLE = {
    "inpainting": (lambda: dp.Inpainting((3, 8, 8), mask=MASKS[:1]), (3, 8, 8)),
    "demosaicing": (lambda: dp.Demosaicing((8, 8)), (3, 8, 8)),
    "mri": (lambda: dp.MRI(mask=KSPACE), (2, 8, 8)),
    "decolorize": (lambda: dp.Decolorize(), (3, 8, 8)),
    "decolorize-5": (lambda: dp.Decolorize(channels=5, srf="flat"), (5, 8, 8)),
    "blur-fft": (lambda: dp.BlurFFT((3, 8, 8), filter=SKEWED), (3, 8, 8)),
    "single-pixel": (lambda: dp.SinglePixelCamera(m=20, img_size=(1, 8, 8), fast=True), (1, 8, 8)),
    "single-pixel-svd": (lambda: dp.SinglePixelCamera(m=20, img_size=(2, 8, 8), fast=False), (2, 8, 8)),
    "denoising": (lambda: dp.Denoising(), (1, 8, 8)),
    "signed": (lambda: dp.DecomposablePhysics(mask=torch.linspace(-1, 1, 8)), (1, 8, 8)),
}
ITERATIVE = {
    "coils": (lambda: dp.MultiCoilMRI(mask=KSPACE, coil_maps=COILS), (2, 8, 8)),
    "tomography": (lambda: dp.Tomography(angles=3, img_width=4, normalize=True, circle=True), (1, 4, 4)),
    "pansharpening": (lambda: dp.Pansharpen((3, 8, 8), factor=2), (3, 8, 8)),
    "blur-valid": (lambda: dp.Blur(filter=SKEWED, padding="valid"), (3, 8, 8)),
    "downsampling": (lambda: dp.Downsampling(img_size=(3, 8, 8), factor=2, filter="bicubic"), (3, 8, 8)),
    "random": (lambda: dp.CompressedSensing(m=20, img_size=(1, 8, 8)), (1, 8, 8)),
    "unmixing": (lambda: dp.HyperSpectralUnmixing(), (15, 4, 4)),
    "function": (lambda: dp.LinearPhysics(A=lambda x, **_: x[..., ::2] - x[..., 1::2], img_size=(3, 8, 8)), (3, 8, 8)),
    "composed": (lambda: dp.Blur(filter=BOX, padding="circular") * dp.Downsampling(factor=2, filter=None), (1, 8, 8)),
    "complex": (
        lambda: dp.LinearPhysics(A=lambda x, **_: torch.fft.fft2(x)[..., :3], img_size=(1, 4, 4)),
        (1, 4, 4),
    ),
}
EVERY = DECOMPOSABLE | ITERATIVE


def made(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make, shape = EVERY[name]
        return make(), shape


def images(shape, count=2):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", EVERY)
def test_a_physics_is_an_operator_with_its_pseudo_inverse(name):
    physics, shape = made(name)
    operator = as_operator(physics, shape)
    assert isinstance(operator, DecomposableOperator) == (name in DECOMPOSABLE) == operator.pinv_is_exact
    report = check_operator(operator, shape, tolerance=2e-4, dtype=torch.float32)
    assert report.ok, report
    x = images(shape)
    observed = physics.A(x)
    torch.testing.assert_close(operator.forward(x), operator.packing.pack(observed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_the_image_shape_is_found_by_the_observation(name):
    physics, shape = made(name)
    observed = physics.A(images(shape))
    operator = physics_operator(physics, observation=observed)
    y = operator.packing.pack(observed)
    assert operator.image_shape(tuple(y.shape[1:])) == shape
    torch.testing.assert_close(operator.forward(images(shape)), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["coils", "pansharpening", "complex", "mri"])
def test_double_physics_compute_in_double(name):
    physics, shape = made(name)
    operator = as_operator(physics.double(), shape)
    report = check_operator(operator, shape, tolerance=1e-5 if name in ITERATIVE else 1e-10)
    assert report.ok, report


def test_observations_pack_and_unpack():
    physics, shape = made("pansharpening")
    operator, observed = as_operator(physics, shape), physics.A(images(shape))
    packed = operator.packing.pack(observed)
    assert packed.shape == (2, 3 * 16 + 64)
    for part, again in zip(observed, operator.packing.unpack(packed), strict=True):
        assert torch.equal(part, again)


def test_deepinv_s_own_inverses_are_not_taken_for_the_pseudo_inverse():
    physics, shape = made("pansharpening")
    operator = as_operator(physics, shape)
    observed = physics.A(images(shape))
    y = operator.packing.pack(observed)
    brovey = operator.forward(physics.A_dagger(observed))
    assert (brovey - y).norm() > 1e-3 * y.norm()
    assert (operator.forward(operator.pinv(y)) - y).norm() < 1e-5 * y.norm()


def test_negligible_singular_values_are_dropped_in_operator_and_inverse():
    mask = torch.tensor([1.0, 0.1, 1e-7, 0.0])
    operator = as_operator(dp.DecomposablePhysics(mask=mask), (1, 1, 4))
    ones = torch.ones(1, 1, 1, 4)
    torch.testing.assert_close(operator.forward(ones).flatten(), torch.tensor([1.0, 0.1, 0.0, 0.0]))
    torch.testing.assert_close(operator.pinv(ones).flatten(), torch.tensor([1.0, 10.0, 0.0, 0.0]))


@pytest.mark.parametrize("name", ["inpainting", "downsampling", "stacked"])
def test_the_device_is_that_of_the_argument_and_the_physics_stays(name):
    stacked = dp.Blur(filter=BOX, padding="circular").stack(dp.Inpainting((3, 8, 8), mask=MASKS[:1]))
    physics = stacked if name == "stacked" else made(name)[0]
    operator = as_operator(physics, (3, 8, 8))
    y = operator.forward(torch.zeros(1, 3, 8, 8, device="meta"))
    assert y.device.type == operator.adjoint(y).device.type == "meta"
    assert operator.forward(images((3, 8, 8))).device.type == "cpu"


@pytest.mark.parametrize("kind", ["decomposable", "blur-fft", "iterative", "stacked"])
def test_parameters_per_image_are_repeated(kind):
    filters = torch.cat([SKEWED, BOX]).expand(2, 3, 3, 3)
    physics = {
        "decomposable": lambda: dp.Inpainting((3, 8, 8), mask=MASKS.expand(2, 3, 8, 8)),
        "blur-fft": lambda: dp.BlurFFT((3, 8, 8), filter=filters),
        "iterative": lambda: dp.Blur(filter=filters, padding="circular"),
        "stacked": lambda: dp.Denoising().stack(dp.Inpainting((3, 8, 8), mask=MASKS.expand(2, 3, 8, 8))),
    }[kind]()
    operator, x = as_operator(physics, (3, 8, 8)), images((3, 8, 8))
    repeated, observed = operator.repeated(3), operator.packing.pack(physics.A(x))
    torch.testing.assert_close(repeated.forward(x.repeat(3, 1, 1, 1))[4:], observed, rtol=1e-4, atol=1e-5)
    projected = repeated.range_projection(x.repeat(3, 1, 1, 1))
    torch.testing.assert_close(projected[2:4], operator.range_projection(x), rtol=1e-2, atol=1e-3)


def test_one_channel_serves_three():
    physics, shape = made("single-pixel-svd")
    with pytest.raises(ShapeError, match="make one for that shape"):
        as_operator(physics, shape).at((3, 8, 8))
    physics, shape = made("random")
    colour, x = as_operator(physics, shape).at((3, 8, 8)), images((3, 8, 8))
    y = colour.forward(x)
    assert y.shape == (2, 3, 20)
    torch.testing.assert_close(y[:, 1], physics.A(x[:, 1:2]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", all_operators())
def test_an_operator_is_a_physics(name):
    operator = all_operators()[name].at(SHAPE)
    physics = as_physics(operator, SHAPE, noise=0.1).double()
    x = images(SHAPE).double()
    y = operator.forward(x)
    torch.testing.assert_close(physics.A(x), y)
    torch.testing.assert_close(physics.A_adjoint(y), operator.adjoint(y))
    torch.testing.assert_close(physics.A_dagger(y), operator.pinv(y))
    assert float(physics.adjointness_test(x)) < 1e-12
    prox = physics.prox_l2(x, y, gamma=2.0)
    torch.testing.assert_close(operator.adjoint(operator.forward(prox) - y) + (prox - x) / 2, 0 * x, rtol=0, atol=1e-7)
    torch.testing.assert_close(physics.V(physics.V_adjoint(x)), x)
    assert float(physics.noise_model.sigma) == pytest.approx(0.1)
    assert as_operator(physics) is physics.deqir_operator
    assert physics_operator(physics, SHAPE).forward(x).equal(y)


def test_an_iterative_operator_is_a_linear_physics():
    operator = as_operator(lambda x: x[..., ::2] + x[..., 1::2], SHAPE)
    physics = as_physics(operator, SHAPE)
    x = images(SHAPE)
    y = physics(x)
    torch.testing.assert_close(physics.A_dagger(y), operator.pinv(y))
    torch.testing.assert_close(physics.A_adjoint(y), operator.adjoint(y))
    assert isinstance(physics.noise_model, dp.ZeroNoise)
    assert not isinstance(physics, dp.DecomposablePhysics)


def test_a_noise_model_is_kept():
    noise = dp.PoissonNoise()
    assert as_physics(all_operators()["sr"], SHAPE, noise).noise_model is noise


@pytest.mark.parametrize(
    ("make", "shape", "error", "message"),
    [
        (lambda: dp.RandomPhaseRetrieval(9, (1, 4, 4)), None, OptionError, "RandomPhaseRetrieval is not linear"),
        (lambda: dp.Inpainting((3, 8, 8)), None, OptionError, "no parameters yet"),
        (lambda: dp.SinglePixelCamera(m=9, img_size=(1, 8, 8)), (1, 5, 5), ShapeError, r"take images of shape \(1, 5"),
    ],
)
def test_what_is_no_operator_is_refused(make, shape, error, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        physics = make()
    with pytest.raises(error, match=message):
        as_operator(physics, shape)


def test_observations_of_another_shape_are_refused():
    physics, shape = made("single-pixel-svd")
    with pytest.raises(ShapeError, match=r"SinglePixelCamera has no observations of shape \(2, 19\)"):
        as_operator(physics, shape).image_shape((2, 19))


def test_volumes_are_refused():
    operator = as_operator(dp.MRI(mask=torch.ones(1, 2, 3, 4, 4), three_d=True))
    with pytest.raises(ShapeError, match=r"deqir takes real ones of \(batch"):
        operator.image_shape((2, 3, 4, 4))
