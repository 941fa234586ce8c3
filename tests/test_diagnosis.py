"""Photos of unknown history: what JPEG's tables tell, how wide a blur is, and what is done about it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from deqir.blur_estimation import estimate_blur
from deqir.diagnosis import diagnose
from deqir.errors import OptionError, ShapeError
from deqir.images import read_image, read_quantization, write_image
from deqir.noise import generator


def photo(side=192):
    from skimage import data

    crop = data.rocket()[100 : 100 + side, 200 : 200 + side].copy()
    return torch.from_numpy(crop).permute(2, 0, 1).float() / 255


def save_jpeg(path, image, **options):
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels).save(path, "JPEG", **options)
    return read_image(path)


def blurred(width):
    return torch.from_numpy(gaussian_filter(photo().numpy(), (0, width, width)))


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_level_of_jpeg_is_near_the_true_error_and_grows(tmp_path, channels, subsampling):
    image = photo() if channels == 3 else photo().mean(0, keepdim=True)
    levels = []
    for quality in (90, 60, 30, 10):
        options = {"subsampling": subsampling} if channels == 3 else {}
        decoded = save_jpeg(tmp_path / "a.jpg", image, quality=quality, **options)
        true = float((decoded - image).square().mean().sqrt())
        levels.append(read_quantization(tmp_path / "a.jpg").noise)
        assert 0.8 < levels[-1] / true < 2
    assert levels == sorted(levels)


@pytest.mark.parametrize("quality", [10, 35, 50, 75, 95])
def test_the_quality_is_read_from_the_tables(tmp_path, quality):
    save_jpeg(tmp_path / "a.jpg", photo(32), quality=quality)
    assert read_quantization(tmp_path / "a.jpg").quality == pytest.approx(quality, abs=2)


def test_other_files_and_tiny_ones(tmp_path):
    write_image(tmp_path / "a.png", photo(32))
    assert read_quantization(tmp_path / "a.png") is None
    Image.new("CMYK", (9, 9)).save(tmp_path / "c.jpg")
    assert read_quantization(tmp_path / "c.jpg") is None
    for side in (1, 9):
        save_jpeg(tmp_path / "t.jpg", photo(side), quality=50)
        assert 0 <= read_quantization(tmp_path / "t.jpg").noise < 0.2


def test_the_width_of_a_blur_is_in_the_interval():
    estimates = []
    for width in (0, 0.7, 1, 1.5, 2, 3):
        found = diagnose(blurred(width)).blur
        assert found.low <= width <= found.high
        estimates.append(found.value)
    assert estimates == sorted(estimates) and estimates[-1] > 2 and estimates[0] < 0.5


def test_units_and_grey_do_not_matter_to_blur():
    grey = blurred(2).double().mean(0, keepdim=True)
    assert estimate_blur(0.5 * grey) == pytest.approx(estimate_blur(grey), rel=0.05)
    assert estimate_blur(grey) == pytest.approx(estimate_blur(blurred(2)), abs=0.2)


def test_remedies():
    assert diagnose(photo()).remedy == "none"
    noisy = photo() + 0.05 * torch.randn(photo().shape, generator=generator(0, "observation"))
    assert diagnose(noisy).remedy == "denoise"
    found = diagnose(noisy).noise
    assert found.low <= 0.05 <= found.high
    assert diagnose(blurred(2)).remedy == "deblur"
    assert diagnose(photo(), noise=0.03).remedy == "denoise"
    assert diagnose(noisy, noise=0.0).remedy == "none"
    assert diagnose(photo(), blur_width=0.5).remedy == "deblur"
    flat = diagnose(torch.full((3, 32, 32), 0.5))
    assert flat.blur is None and flat.remedy == "none" and "blur unknown" in flat.sentence


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(OptionError, match="give blur_width"):
        estimate_blur(torch.full((1, 32, 32), 0.5))
    with pytest.raises(ShapeError, match="16 x 16"):
        estimate_blur(torch.zeros(3, 8, 8))


def test_a_clean_photo_is_left_alone_and_says_so(deqir, tmp_path):
    write_image(tmp_path / "a.png", photo(96))
    code, out, err = deqir(
        "restore", tmp_path / "a.png", "--task", "auto", "--out", tmp_path / "o", "--stats", tmp_path / "s"
    )
    assert code == 0, err
    assert "left alone" in out
    assert torch.equal(read_image(tmp_path / "o" / "a.png"), read_image(tmp_path / "a.png"))
    record = json.loads((tmp_path / "s").read_text())[0]
    assert record["status"] == "unchanged" and record["nfe"] == 0 and record["findings"]["noise"]["low"] == 0


def test_a_folder_mixes_remedies(deqir, tmp_path):
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "clean.png", photo(64))
    write_image(tmp_path / "in" / "soft.png", blurred(2))
    code, _out, err = deqir("restore", tmp_path / "in", "--task", "auto", "--solver", "serial", "--out", tmp_path / "o")
    assert code == 0, err
    assert torch.equal(read_image(tmp_path / "o" / "clean.png"), photo(64))
    assert not torch.equal(read_image(tmp_path / "o" / "soft.png"), read_image(tmp_path / "in" / "soft.png"))


def test_noise_auto_reads_the_tables_of_a_jpeg(deqir, tmp_path):
    save_jpeg(tmp_path / "a.jpg", photo(64), quality=20)
    arguments = ("--task", "denoise", "--noise", "auto", "--solver", "serial", "--stats", tmp_path / "s")
    code, _out, err = deqir("restore", tmp_path / "a.jpg", "--out", tmp_path / "o", *arguments)
    assert code == 0, err
    level = json.loads((tmp_path / "s").read_text())[0]["noise"]
    assert level == pytest.approx(read_quantization(tmp_path / "a.jpg").noise) and level > 0.015


def test_a_photo_too_small_for_its_blur_is_judged_by_its_noise():
    found = diagnose(torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0)))
    assert found.blur is None and found.remedy == "denoise"
    assert "blur unknown (too small, or hardly any edges)" in found.sentence
    assert "blur 1.5 px as given" in diagnose(photo(), blur_width=1.5).sentence
