"""The command line on photos as people have them: formats, depth, frames, sequences, unknown noise, large sizes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import sentence
from deqir.images import read_image, read_photo, write_image
from deqir.items import in_order
from deqir.noise import generator


def smooth(height, width, channels=3, peak=255):
    steps = np.linspace(0.1, 0.9, height)[:, None] * np.linspace(0.3, 1, width)[None]
    return (steps[..., None] * np.linspace(1, 0.5, channels) * peak).astype(np.uint8)


@pytest.mark.parametrize(
    ("image_format", "suffix", "depth"),
    [("png", ".png", 8), ("png", ".png", 16), ("tiff", ".tif", 16), ("webp", ".webp", 8), ("jpg", ".jpg", 8)],
)
def test_format_and_depth_are_chosen(deqir, photo, tmp_path, image_format, suffix, depth):
    out = tmp_path / "o"
    arguments = ("--format", image_format, "--depth", depth, "--task", "inpaint", "--hidden", "0.1")
    assert deqir("restore", photo, "--out", out, *arguments)[0] == 0
    assert [path.name for path in out.iterdir()] == [f"photo{suffix}"]
    values = read_image(out / f"photo{suffix}").double() * 255
    assert bool(((values - values.round()).abs() > 1e-3).any()) == (depth == 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "gif"], "format is 'gif'; choose one of png, jpg, webp, tiff"),
        (["--format", "jpg", "--depth", "16"], "depth is 16 for format jpg; choose auto, 8, or 16 with png or tiff"),
        (["--depth", "12"], "depth is 12"),
        (["--noise", "loud"], "the noise level is 'loud'; choose a number in units of 0..1, or auto"),
        (["--noise", "nan"], "the noise level is nan"),
        (["--noise", "auto", "--simulate"], "give noise a number instead of auto"),
        (["--tile", "4"], "tile is 4; choose auto, none or a whole number of at least 8 pixels"),
        (["--tile", "16", "--tile-overlap", "9"], "choose at most half of the tile"),
    ],
)
def test_usage_errors_end_with_2(deqir, photo, tmp_path, arguments, message):
    code, _out, err = deqir("restore", photo, "--task", "sr", "--out", tmp_path / "o", *arguments)
    assert code == 2
    assert message in sentence(err)
    assert not (tmp_path / "o").exists()


def test_opacity_profile_and_greyness_survive(deqir, tmp_path):
    rgba = smooth(6, 8, 4)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    Image.fromarray(smooth(6, 8, 2)).save(tmp_path / "grey.png")
    assert deqir("restore", tmp_path, "--task", "sr", "--scale", "2", "--out", tmp_path / "o")[0] == 0
    photo, grey = read_photo(tmp_path / "o" / "a.png"), read_photo(tmp_path / "o" / "grey.png")
    assert photo.image.shape == (3, 12, 16) and grey.image.shape == (1, 12, 16)
    alpha = torch.from_numpy(rgba[..., 3].astype(np.float32) / 255)
    pooled = photo.attachments.alpha.view(6, 2, 8, 2).mean((1, 3))
    torch.testing.assert_close(pooled, alpha, rtol=0, atol=0.03)
    assert grey.attachments.alpha.shape == (1, 12, 16)


def test_frames_become_numbered_results_with_a_record_each(deqir, photo, tmp_path):
    frames = [Image.fromarray(smooth(6, 8) // (k + 1)) for k in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    stats = tmp_path / "s.json"
    arguments = ("--task", "inpaint", "--hidden", "0", "--out", tmp_path / "o", "--stats", stats)
    code, _, err = deqir("restore", tmp_path / "moving.gif", photo, *arguments)
    assert code == 0 and "4 of 4 restored" in err
    names = ["moving-0001.png", "moving-0002.png", "moving-0003.png", "photo.png"]
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == names
    assert [record["frame"] for record in json.loads(stats.read_text())] == [0, 1, 2, 0]
    for k in range(3):
        frame = read_photo(tmp_path / "moving.gif", k).image
        torch.testing.assert_close(read_image(tmp_path / "o" / names[k]), frame, rtol=0, atol=0.003)


def test_a_sequence_starts_from_the_frame_before_and_ends_with_the_same_images(deqir, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for k in (1, 2, 10):
        write_image(source / f"frame{k}.png", torch.from_numpy(smooth(8, 8, 1)).permute(2, 0, 1) / 255 * (1 - k / 500))
    write_image(source / "frame11.png", torch.rand(1, 8, 10))
    records = {}
    for name, extra in (("alone", ()), ("sequence", ("--sequence",))):
        stats = tmp_path / f"{name}.json"
        arguments = ("--task", "denoise", "--noise", "0.05", "--steps", "12", "--solver", "picard", *extra)
        assert deqir("restore", source, *arguments, "--out", tmp_path / name, "--stats", stats)[0] == 0
        records[name] = json.loads(stats.read_text())
    assert [r["file"].rsplit("frame")[-1] for r in records["sequence"]] == ["1.png", "2.png", "10.png", "11.png"]
    assert [record["warm_start"] for record in records["sequence"]] == [False, True, True, False]
    assert not any(record["warm_start"] for record in records["alone"])
    sweeps = {name: {record["file"]: record["sweeps"] for record in records[name]} for name in records}
    warm = [record["file"] for record in records["sequence"] if record["warm_start"]]
    assert sum(sweeps["sequence"][file] for file in warm) < sum(sweeps["alone"][file] for file in warm)
    for path in source.iterdir():
        pair = [read_image(tmp_path / name / path.name) for name in records]
        torch.testing.assert_close(*pair, rtol=0, atol=6 / 255)


def test_numbers_in_names_count_as_numbers(tmp_path):
    names = ["b2.png", "a10.png", "a9.png", "a.png", "a1b20.png", "a1b3.png"]
    ordered = [path.name for path in in_order([tmp_path / name for name in names])]
    assert ordered == ["a.png", "a1b3.png", "a1b20.png", "a9.png", "a10.png", "b2.png"]


@pytest.mark.parametrize("task", [["denoise"], ["inpaint"], ["sr", "--scale", "2"]])
def test_the_noise_is_estimated_and_the_record_says_so(deqir, tmp_path, task):
    image = torch.from_numpy(smooth(40, 40)).permute(2, 0, 1) / 255
    write_image(tmp_path / "a.png", image + 0.1 * torch.randn(image.shape, generator=generator(0, "a")), bits=16)
    stats = tmp_path / "s.json"
    arguments = ("--task", *task, "--noise", "auto", "--out", tmp_path / "o", "--stats", stats)
    code, out, err = deqir("restore", tmp_path / "a.png", *arguments)
    assert code == 0, err
    (record,) = json.loads(stats.read_text())
    assert record["noise_estimated"] is True and record["rule"] == "ddnm+"
    assert record["noise"] == pytest.approx(0.1, rel=0.25)
    assert f"noise estimated as {record['noise']:.4f}" in out


def test_measurements_that_are_no_image_tell_no_noise(deqir, photo, tmp_path):
    assert deqir("degrade", photo, "--task", "cs", "--out", tmp_path / "y.safetensors")[0] == 0
    code, _, err = deqir("restore", tmp_path / "y.safetensors", "--noise", "auto", "--out", tmp_path / "o")
    assert code == 1
    assert "cannot be estimated from its measurements; give it a number" in sentence(err)


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1)])
def test_very_wide_and_very_small_photos(deqir, tmp_path, size):
    write_image(tmp_path / "a.png", torch.rand(3, *size))
    stats = tmp_path / "s.json"
    arguments = ("--task", "denoise", "--noise", "0.1", "--tile", "16", "--out", tmp_path / "o", "--stats", stats)
    assert deqir("restore", tmp_path / "a.png", *arguments)[0] == 0
    assert read_image(tmp_path / "o" / "a.png").shape == (3, *size)
    assert json.loads(stats.read_text())[0]["tile"] == (16 if max(size) > 16 else None)


def deep(tmp_path, name, mode="RGB"):
    """A photo of 16 bits whose values are none of 8."""
    values = torch.linspace(0.1, 0.9, 3 * 8 * 8).view(3, 8, 8) + 1e-3
    write_image(tmp_path / name, values if mode == "RGB" else values[:1], bits=16)
    return tmp_path / name


def is_deep(path):
    values = read_image(path).double() * 255
    return bool(((values - values.round()).abs() > 1e-3).any())


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("a.png", "L"), ("a.tif", "RGB"), ("a.tif", "L")])
@pytest.mark.parametrize("task", [("inpaint", "--hidden", "0.1"), ("auto", "--noise", "0")])
def test_sixteen_bits_stay_sixteen_and_eight_stay_eight(deqir, photo, tmp_path, name, mode, task):
    source, stats = deep(tmp_path, name, mode), tmp_path / "s.json"
    for format_, suffix, bits in (("png", ".png", 16), ("tiff", ".tif", 16), ("jpg", ".jpg", 8)):
        out = tmp_path / format_
        arguments = ("--task", *task, "--format", format_, "--stats", stats, "--overwrite")
        code, _, err = deqir("restore", source, photo, *arguments, "--out", out)
        assert code == 0, err
        assert [record["depth"] for record in json.loads(stats.read_text())] == [bits, 8]
        assert is_deep(out / f"a{suffix}") == (bits == 16)
        if format_ == "png":
            assert not is_deep(out / "photo.png")
            assert deqir("verify", stats)[0] == 0
            assert deqir("restore", source, "--config", _first(stats), "--out", tmp_path / "again")[0] == 0
            assert (tmp_path / "again" / "a.png").read_bytes() == (out / "a.png").read_bytes()


def _first(stats):
    """The first record of ``stats`` in a file of its own."""
    alone = stats.with_name("alone.json")
    alone.write_text(json.dumps(json.loads(stats.read_text())[:1]))
    return alone


def test_the_depth_of_a_folder_follows_each_file(deqir, photo, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    deep(source, "deep.png")
    photo.rename(source / "plain.png")
    arguments = ("restore", source, "--task", "inpaint", "--hidden", "0.1", "--out", tmp_path / "o")
    assert deqir(*arguments)[0] == 0
    assert [is_deep(tmp_path / "o" / name) for name in ("deep.png", "plain.png")] == [True, False]
    assert deqir("verify", tmp_path / "o")[0] == 0
    assert "2 were done before" in deqir(*arguments)[2]
    assert deqir(*arguments, "--depth", "8", "--overwrite")[0] == 0
    assert not is_deep(tmp_path / "o" / "deep.png")


@pytest.mark.parametrize("folder", [False, True])
def test_a_photo_left_alone_has_a_whole_record_that_repeats_it(deqir, tmp_path, folder):
    from test_cli import RECORD_KEYS

    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.png", torch.full((3, 40, 40), 0.5))
    source, stats = tmp_path / "in" if folder else tmp_path / "in" / "a.png", tmp_path / "s.json"
    asked = ("--task", "auto", "--eta", "0.5", "--seed", "3", "--stats", stats, "--out", tmp_path / "o")
    code, _, err = deqir("restore", source, *asked)
    assert code == 0, err
    (record,) = json.loads(stats.read_text())
    assert record.keys() >= RECORD_KEYS and record["status"] == "unchanged"
    assert (record["steps"], record["eta"], record["seed"], record["dtype"]) == (3, 0.5, 3, "float32")
    assert (record["residual"], record["measurement_error"], record["nfe"]) == (None, None, 0)
    assert deqir("verify", stats)[0] == 0
    code, out, err = deqir("restore", source, "--config", stats, "--json", "--out", tmp_path / "again")
    assert code == 0, err
    assert json.loads(out)["status"] == "unchanged"


@pytest.mark.parametrize("size", [(2, 9), (1, 1)])
def test_a_photo_too_small_for_ssim_is_compared_by_psnr(deqir, tmp_path, size):
    write_image(tmp_path / "a.png", torch.rand(3, *size))
    stats = tmp_path / "s.json"
    arguments = ("--task", "denoise", "--noise", "0.1", "--simulate", "--stats", stats, "--out", tmp_path / "o")
    code, out, err = deqir("restore", tmp_path / "a.png", *arguments)
    assert code == 0, err
    (record,) = json.loads(stats.read_text())
    assert (record["ssim"], record["classical_ssim"]) == (None, None) and record["psnr"] > 0
    assert "SSIM - (-)" in out


def test_a_photo_too_small_for_an_estimate_is_named(deqir, tmp_path):
    write_image(tmp_path / "tiny.png", torch.rand(3, 2, 3))
    for task in (("denoise", "--noise", "auto"), ("auto",), ("old-photo",)):
        code, _, err = deqir("restore", tmp_path / "tiny.png", "--task", *task, "--out", tmp_path / "o")
        assert code == 1 and "tiny.png: hardly any neighbouring pixels are known" in sentence(err)


def test_what_has_not_converged_is_said_with_its_error_and_advice(deqir, photo, tmp_path):
    arguments = ("--task", "inpaint", "--solver", "picard", "--steps", "8", "--max-sweeps", "1", "--tolerance", "0")
    code, out, err = deqir("restore", photo, *arguments, "--out", tmp_path / "o")
    assert code == 0, err
    assert "; not converged, off by a" in out and "raise max_sweeps or the tolerance" in out
    assert " 1 sweep," in out
