"""Old photos: damage that is known is found, fading is undone, and the composed operator keeps its meaning."""

import json

import pytest
import torch
from torch.nn.functional import max_pool2d

from conftest import sentence
from deqir.ageing import FADED, Ageing
from deqir.appraisal import appraise
from deqir.defects import DefectDetector
from deqir.errors import OptionError, ShapeError
from deqir.fading import Fading, estimate_fading
from deqir.images import read_image, write_image
from deqir.old_photo import classical_old_photo, old_photo_operator
from deqir.tasks import Task


def photo(side=192):
    from skimage import data

    crop = data.rocket()[:side, 200 : 200 + side].copy()
    return torch.from_numpy(crop).permute(2, 0, 1).float()[None] / 255


@pytest.fixture(scope="module")
def aged():
    return Ageing(seed=2).apply(photo())


def test_damage_is_found_and_little_else(aged):
    found, true = DefectDetector().observed(aged.image) == 0, aged.mask == 0
    near = max_pool2d(true.float(), 5, 1, 2) > 0
    assert 0.01 < float(true.double().mean()) < 0.15
    assert float((found & true).sum() / true.sum()) > 0.6
    assert float((found & near).sum() / found.sum()) > 0.8  # at random it would be the share of damage


def test_a_clean_photo_is_hardly_masked():
    assert float((DefectDetector().observed(photo()) == 0).double().mean()) < 0.02
    assert bool((DefectDetector().observed(torch.full((1, 1, 40, 40), 0.5)) == 1).all())


def test_bright_and_dark_lines_are_found_alike():
    image = torch.full((1, 1, 64, 64), 0.5)
    image[..., 30] = 0.9
    mask = DefectDetector().observed(image)
    assert bool((mask[..., 30] == 0).all()) and bool((mask[..., :26] == 1).all() and (mask[..., 35:] == 1).all())
    assert torch.equal(DefectDetector().observed(1 - image), mask)


def test_damage_is_drawn_from_the_seed():
    again = Ageing(seed=2).apply(photo())
    assert torch.equal(again.image, Ageing(seed=2).apply(photo()).image)
    assert not torch.equal(again.mask, Ageing(seed=3).apply(photo()).mask)
    untouched = Ageing(fading=None, grain=0, scratches=0, specks=0).apply(photo())
    assert torch.equal(untouched.image, photo()) and bool((untouched.mask == 1).all())


def test_fading_is_undone_exactly_and_found_nearly():
    x = photo().double()
    torch.testing.assert_close(FADED.undo(FADED.apply(x)), x)
    full = torch.linspace(0.015, 0.965, 192, dtype=torch.float64).expand(1, 3, 192, 192)
    known = torch.ones(1, 1, 192, 192)
    assert estimate_fading(full, known) is None
    found = estimate_fading(FADED.apply(full), known)
    assert found is not None
    assert found.gain == pytest.approx(FADED.gain, abs=0.01) and found.offset == pytest.approx(FADED.offset, abs=0.01)


def test_tones_of_damage_do_not_count():
    x = 0.3 + 0.3 * photo().double()
    known = torch.ones(1, 1, 192, 192)
    known[..., :20] = 0
    damaged = torch.where(known > 0, x, 1.0)
    assert estimate_fading(damaged, known) != estimate_fading(damaged, torch.ones_like(known))
    found = estimate_fading(damaged, known)
    assert found is not None and max(found.gain) < 0.35


@pytest.mark.parametrize(("scale", "weights"), [(1, None), (2, None), (1, "luma"), (2, "luma")])
def test_the_operator_is_exact_and_damaged_pixels_are_unknown(scale, weights):
    mask = torch.ones(1, 1, 4, 4)
    mask[..., 1, 2] = 0
    shape = (3, 4 * scale, 4 * scale)
    operator = old_photo_operator(mask, scale, weights).at(shape)
    matrix = operator.as_matrix(shape)
    assert operator.pinv_is_exact
    y = torch.rand(1, 1 if weights else 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.linalg.pinv(matrix) @ y.flatten()
    torch.testing.assert_close(operator.pinv(y).flatten(), expected)
    assert bool((matrix.view(-1, 4, 4, matrix.shape[1])[:, 1, 2] == 0).all())
    assert operator.image_shape(tuple(y.shape[1:])) == shape


def test_the_appraisal_keeps_the_scan_where_it_is_whole(aged):
    task = Task.from_settings({"name": "old-photo", "scale": 2, "fading": "none"})
    found = appraise(task, aged.image, None, None)
    whole = found.mask.expand(aged.image.shape) > 0
    assert torch.equal(found.y[whole], aged.image[whole]) and not bool(found.y[~whole].any())
    assert found.task.image_shape(tuple(found.y.shape[1:])) == (3, 384, 384)
    assert found.noise == pytest.approx(0.03, rel=0.3)
    undone = appraise(Task.from_settings({"name": "old-photo"}), aged.image, None, None)
    assert undone.noise > found.noise  # the contrast that comes back brings the grain with it


def test_classical_inpainting_needs_nothing_under_the_mask(aged):
    y = classical_old_photo(aged.image, aged.mask, 1, False, 0.0)
    wild = classical_old_photo(torch.where(aged.mask > 0, aged.image, 1.0), aged.mask, 1, False, 0.0)
    assert torch.equal(y, wild)
    assert classical_old_photo(aged.image[:, :1], aged.mask, 2, True, 0.0).shape == (1, 3, 384, 384)


def test_the_mask_is_written_and_can_be_given_back(deqir, tmp_path, aged):
    write_image(tmp_path / "old.png", aged.image[0, :, :64, :64])
    code, out, err = deqir(
        "restore", tmp_path / "old.png", "--task", "old-photo", "--solver", "serial", "--out", tmp_path / "o",
        "--stats", tmp_path / "s.json",
    )  # fmt: skip
    assert code == 0, err
    assert "damaged (detected)" in out and "give it back with --mask" in out
    record = json.loads((tmp_path / "s.json").read_text())[0]
    mask = tmp_path / "o" / "old-mask.png"
    assert record["mask_file"] == str(mask) and record["findings"]["mask_detected"]
    assert float((read_image(mask) == 0).double().mean()) == pytest.approx(record["findings"]["mask_share"], abs=1e-6)
    arguments = ("--mask", mask, "--noise", record["noise"], "--solver", "serial", "--stats", tmp_path / "t.json")
    code, out, err = deqir("restore", tmp_path / "old.png", "--task", "old-photo", "--out", tmp_path / "p", *arguments)
    assert code == 0, err
    assert not json.loads((tmp_path / "t.json").read_text())[0]["findings"]["mask_detected"]
    assert torch.equal(read_image(tmp_path / "p" / "old.png"), read_image(tmp_path / "o" / "old.png"))


def test_a_folder_gets_its_masks_and_colours(deqir, tmp_path, aged):
    (tmp_path / "in").mkdir()
    for name, crop in (("a", aged.image[0, :, :32, :32]), ("b", aged.image[0, :, 60:92, :32])):
        write_image(tmp_path / "in" / f"{name}.png", crop.mean(0, keepdim=True))
    arguments = ("--task", "old-photo", "--colorize", "--scale", "2", "--solver", "serial", "--out", tmp_path / "o")
    code, _out, err = deqir("restore", tmp_path / "in", *arguments)
    assert code == 0, err
    assert read_image(tmp_path / "o" / "a.png").shape == (3, 64, 64)
    assert read_image(tmp_path / "o" / "b-mask.png").shape == (1, 32, 32)


def test_what_makes_no_sense_is_refused(deqir, tmp_path, photo):
    for arguments, message in (
        (("--task", "old-photo", "--simulate"), "to simulate it give --mask scratches, or a file"),
        (("--task", "old-photo", "--fading", "strong"), "fading is 'strong'; choose auto or none"),
        (("--task", "auto", "--simulate"), "name another --task"),
        (("--task", "auto", "--blur-width", "-1"), "blur_width is -1"),
    ):
        code, _out, err = deqir("restore", photo, "--out", tmp_path / "o", *arguments)
        assert code != 0 and message in sentence(err)
    with pytest.raises(OptionError, match="gains above zero"):
        Fading((0.0,), (0.1,))
    with pytest.raises(OptionError, match="radius is 0"):
        DefectDetector(radius=0)
    with pytest.raises(ShapeError, match="1 or 3"):
        DefectDetector().observed(torch.zeros(3, 8, 8))
