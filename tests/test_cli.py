"""The command line, run in this process with a tiny prior, and as a real process where that matters."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import sentence
from deqir.images import read_image, write_image
from deqir.items import targets

RECORD_KEYS = {
    "file", "task", "steps", "eta", "seed", "prior", "solver", "status", "sweeps", "nfe", "seconds", "max_batch",
    "residual", "measurement_error", "device", "dtype", "version",
}  # fmt: skip


TASKS = {
    "sr": ["--scale", "3"],
    "sr-bicubic": ["--scale", "2", "--downsampling", "bicubic"],
    "inpaint": ["--hidden", "0.3"],
    "inpaint-box": ["--mask", "box"],
    "inpaint-text": ["--mask", "text"],
    "colorize": ["--weights", "luma"],
    "deblur": ["--blur", "gaussian"],
    "deblur-motion": ["--blur", "motion"],
    "deblur-reflect": ["--blur", "uniform", "--boundary", "reflect"],
    "cs": ["--ratio", "0.5"],
}


@pytest.mark.parametrize("name", TASKS)
def test_simulate_reports_against_the_truth_and_the_classical_method(deqir, photo, tmp_path, name):
    stats = tmp_path / "stats.json"
    task = ["--task", name.split("-")[0], *TASKS[name]]
    code, out, err = deqir("restore", photo, "--simulate", *task, "--out", tmp_path / "o", "--stats", stats)
    assert code == 0, err
    (record,) = json.loads(stats.read_text())
    assert RECORD_KEYS | {"psnr", "ssim", "classical", "classical_psnr", "classical_ssim"} <= record.keys()
    assert record["status"] == "converged"
    assert record["measurement_error"] < 1e-4
    assert 0 < record["psnr"] < 60
    assert f"PSNR {record['psnr']:.2f} dB" in out
    assert read_image(tmp_path / "o" / "photo.png").shape == (3, 19, 21)


@pytest.mark.parametrize("name", TASKS)
def test_degrade_then_restore_needs_no_further_settings(deqir, photo, tmp_path, name):
    observation = tmp_path / "y.safetensors"
    code, _, err = deqir("degrade", photo, "--task", name.split("-")[0], *TASKS[name], "--out", observation)
    assert code == 0, err
    code, _out, err = deqir("restore", observation, "--out", tmp_path / "o", "--stats", tmp_path / "s.json")
    assert code == 0, err
    assert read_image(tmp_path / "o" / "y.png").shape == (3, 19, 21)
    assert json.loads((tmp_path / "s.json").read_text())[0]["measurement_error"] < 1e-4


def test_degrade_to_a_16_bit_png_loses_nothing_that_matters(deqir, photo, tmp_path):
    assert deqir("degrade", photo, "--task", "sr", "--scale", "3", "--out", tmp_path / "y.png")[0] == 0
    code, _out, err = deqir("restore", tmp_path / "y.png", "--out", tmp_path / "o", "--stats", tmp_path / "s.json")
    assert code == 0, err
    assert read_image(tmp_path / "o" / "y.png").shape == (3, 19, 21)
    truth = read_image(photo)
    first_block = truth[:, :3, :3].mean((1, 2))
    torch.testing.assert_close(read_image(tmp_path / "y.png")[:, 0, 0], first_block, rtol=0, atol=1e-5)


def test_own_photos_of_every_kind(deqir, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    pixels = np.random.default_rng(1).integers(0, 255, (7, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(source / "a.jpg")
    Image.fromarray(pixels).save(source / "b.webp")
    Image.fromarray(pixels).save(source / "c.tiff")
    Image.fromarray(pixels[..., 0]).save(source / "grey.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(source / "turned.jpg", exif=turned)
    code, _out, err = deqir("restore", source, "--task", "sr", "--scale", "2", "--out", tmp_path / "o")
    assert code == 0, err
    shapes = {path.stem: tuple(read_image(path).shape) for path in sorted((tmp_path / "o").glob("*.png"))}
    assert shapes == {
        "a": (3, 14, 20),
        "b": (3, 14, 20),
        "c": (3, 14, 20),
        "grey": (1, 14, 20),
        "turned": (3, 20, 14),
    }
    assert "5 of 5 restored, 0 failed" in err


def test_own_mask_and_kernel_files(deqir, photo, tmp_path):
    mask = np.full((19, 21), 255, np.uint8)
    mask[5:9, 3:12] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    kernel = np.zeros((5, 5), np.uint8)
    kernel[2] = 200
    Image.fromarray(kernel).save(tmp_path / "kernel.png")
    out = tmp_path / "o"
    code, _, err = deqir("restore", photo, "--task", "inpaint", "--mask", tmp_path / "mask.png", "--out", out)
    assert code == 0, err
    kept = torch.from_numpy(mask > 0).expand(3, 19, 21)
    restored, original = read_image(out / "photo.png"), read_image(photo)
    torch.testing.assert_close(restored[kept], original[kept], rtol=0, atol=0.003)
    code, _, err = deqir(
        "restore", photo, "--task", "deblur", "--blur", tmp_path / "kernel.png", "--out", out, "--overwrite"
    )
    assert code == 0, err


def test_bad_files_do_not_stop_the_others(deqir, photo, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "words.jpg").write_text("not a picture")
    stats = tmp_path / "stats.json"
    code, _out, err = deqir(
        "restore", tmp_path / "empty.png", tmp_path / "missing.png", photo, tmp_path / "words.jpg",
        "--task", "sr", "--out", tmp_path / "o", "--stats", stats,
    )  # fmt: skip
    assert code == 1
    assert "1 of 4 restored, 3 failed" in err
    for name in ("empty.png", "missing.png", "words.jpg"):
        assert sum(name in line for line in err.splitlines() if line.startswith("deqir: ")) == 1
    records = {os.path.basename(record["file"]): record for record in json.loads(stats.read_text())}
    assert records["photo.png"]["status"] == "converged"
    assert records["empty.png"]["status"] == "failed"
    assert "empty.png" in records["empty.png"]["error"]
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "magic"], "task is 'magic'; choose one of sr, inpaint"),
        (["--task", "sr", "--scale", "0"], "scale"),
        (["--task", "sr", "--downsampling", "nearest"], "'nearest'"),
        (["--task", "sr", "--steps", "0"], "steps is 0"),
        (["--task", "sr", "--steps", "5000"], "steps is 5000; choose a number from 1 to 1000"),
        (["--task", "sr", "--eta", "3"], "eta is 3.0"),
        (["--task", "sr", "--solver", "newton"], "solver is 'newton'"),
        (["--task", "sr", "--dtype", "int8"], "dtype is 'int8'"),
        (["--task", "sr", "--tolerance", "-1"], "tolerance is -1.0"),
        (["--task", "sr", "--max-batch", "0"], "max_batch is 0; choose auto or a whole number of at least 1"),
        (["--task", "sr", "--max-batch", "-2"], "max_batch is -2"),
        (["--task", "sr", "--max-batch", "many"], "max_batch is 'many'; choose auto or a whole number"),
        (["--task", "sr", "--max-batch", "2.5"], "max_batch is '2.5'"),
        (["--task", "sr", "--spacing", "even"], "spacing is 'even'"),
        (["--task", "sr", "--rule", "dps"], "rule is 'dps'; choose one of auto, ddnm, ddnm+, diffpir, ddrm"),
        (["--task", "sr", "--travel-repeat", "0"], "travel_repeat 0; choose at least 1"),
        (["--task", "sr", "--steps", "4", "--travel-length", "4", "--travel-repeat", "2"], "has 4 steps"),
        (["--task", "inpaint", "--hidden", "1.5"], "hidden is 1.5"),
        (["--task", "colorize", "--weights", "red"], "'red'"),
        (["--task", "deblur", "--boundary", "none"], "'none'"),
        (["--task", "deblur", "--threshold", "2"], "threshold is 2.0"),
        (["--task", "cs", "--ratio", "0"], "ratio"),
        (["--simulate"], "choose one with --task"),
        ([], "no task is given and no file carries one; choose one with --task"),
        (["--task", "denoise"], "task denoise needs the noise level; give --noise"),
        (["--task", "denoise", "--noise", "0"], "task denoise needs the noise level; give --noise"),
        (["--task", "auto", "--simulate"], "task auto looks for what is wrong with a photo and makes nothing worse"),
        (["--task", "old-photo", "--simulate"], "give --mask scratches, or a file"),
        (["--task", "inpaint", "--mask", "detect"], "here choose random, box, text, scratches or a file"),
        (["--task", "inpaint", "--mask", "nowhere.png"], "'nowhere.png' is not a file"),
        (["--task", "old-photo", "--mask", "nowhere.png"], "'nowhere.png' is not a file"),
        (["--task", "inpaint", "--mask", "{black}"], "black everywhere"),
        (["--task", "inpaint", "--mask", "{words}"], "words.png is not a readable"),
        (["--task", "deblur", "--blur", "sharp"], "'sharp' is not a file"),
        (["--task", "deblur", "--blur", "motion", "--boundary", "zero"], "zero"),
        (["--task", "sr", "--device", "foo"], "device is 'foo'; choose cpu, cuda"),
    ],
)
def test_usage_errors_end_with_2(deqir, photo, tmp_path, prior_folder, arguments, message):
    Image.fromarray(np.zeros((19, 21), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "words.png").write_text("not a picture")
    given = [argument.format(black=tmp_path / "black.png", words=tmp_path / "words.png") for argument in arguments]
    places = ("--out", tmp_path / "o", "--stats", tmp_path / "s" / "s.json")
    code, _out, err = deqir("restore", photo, photo, *places, "--prior", prior_folder, *given, prior=False)
    assert code == 2
    assert message in sentence(err)
    assert not (tmp_path / "o").exists() and not (tmp_path / "s").exists()


@pytest.mark.parametrize(("asked", "limit"), [("auto", 2**17 // (19 * 21)), ("3", 3), ("1", 1)])
def test_max_batch_is_auto_or_a_number(deqir, photo, tmp_path, asked, limit):
    stats = tmp_path / "s.json"
    arguments = ("--task", "denoise", "--noise", "0.1", "--max-batch", asked, "--stats", stats)
    assert deqir("restore", photo, "--out", tmp_path / "o", *arguments)[0] == 0
    assert json.loads(stats.read_text())[0]["max_batch"] == limit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "sr", "--scale", "50", "--simulate"], "scale"),
        (["--task", "inpaint", "--mask", "{small}"], "photo.png: mask"),
        (["--task", "inpaint", "--mask", "{small}"], "make them the same size"),
        (["--task", "cs"], "deqir degrade"),
        (["--task", "sr", "--device", "cuda:77"], "cuda:77 is not available"),
    ],
)
def test_failures_end_with_1(deqir, photo, tmp_path, arguments, message):
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / "small.png")
    filled = [argument.format(small=tmp_path / "small.png") for argument in arguments]
    code, _out, err = deqir("restore", photo, "--out", tmp_path / "o", *filled)
    assert code == 1
    assert message in sentence(err)


def test_a_prior_that_is_none(deqir, photo, tmp_path):
    code, _, err = deqir(
        "restore", photo, "--task", "sr", "--out", tmp_path / "o", "--prior", tmp_path / "nothing", prior=False
    )
    assert code == 1
    assert "nothing is not a folder" in sentence(err)


def test_existing_results_are_kept_unless_told(deqir, photo, tmp_path):
    arguments = ("restore", photo, "--task", "sr", "--out", tmp_path / "o")
    assert deqir(*arguments)[0] == 0
    before = (tmp_path / "o" / "photo.png").read_bytes()
    code, _, err = deqir(*arguments, "--seed", "1")
    assert code == 1
    assert "add --overwrite" in sentence(err)
    assert (tmp_path / "o" / "photo.png").read_bytes() == before
    assert deqir(*arguments, "--seed", "1", "--overwrite")[0] == 0
    assert (tmp_path / "o" / "photo.png").read_bytes() != before


def test_an_output_folder_that_cannot_be(deqir, photo, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = deqir("restore", photo, "--task", "sr", "--out", tmp_path / "file" / "o")
    assert code == 1
    assert "cannot be written" in sentence(err)


def test_a_grey_photo_cannot_be_decoloured_but_can_be_coloured(deqir, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 8), dtype=np.uint8)).save(tmp_path / "g.png")
    code, _, err = deqir("restore", tmp_path / "g.png", "--task", "colorize", "--simulate", "--out", tmp_path / "o")
    assert code == 1
    assert "grey already" in sentence(err)
    assert deqir("restore", tmp_path / "g.png", "--task", "colorize", "--out", tmp_path / "o")[0] == 0
    assert read_image(tmp_path / "o" / "g.png").shape == (3, 9, 8)


def test_degrade_refuses_what_a_png_cannot_hold(deqir, photo, tmp_path):
    code, _, err = deqir("degrade", photo, "--task", "cs", "--out", tmp_path / "y.png")
    assert code == 2
    assert ".safetensors" in sentence(err)
    assert not (tmp_path / "y.png").exists()


@pytest.mark.parametrize("metadata", [{"task": 3}, {"task": {"name": "sr", "scale": "four"}}, {"task": {"nom": "sr"}},
                                      {"task": {"name": "sr", "scale": 2}, "image_shape": [3, -1, 4]},
                                      {"task": {"name": "sr", "scale": 2}, "image_shape": [3, 400, 400]}])  # fmt: skip
def test_forged_metadata_gets_one_sentence(deqir, tmp_path, metadata):
    write_image(tmp_path / "y.png", torch.rand(3, 6, 6), metadata=metadata)
    code, _, err = deqir("restore", tmp_path / "y.png", "--out", tmp_path / "o")
    assert code == 1
    assert sentence(err)


def test_noise_is_added_told_and_removed_by_its_own_rule(deqir, photo, tmp_path):
    stats = tmp_path / "s.json"
    code, _, err = deqir(
        "restore", photo, "--simulate", "--task", "denoise", "--noise", "0.1", "--out", tmp_path / "o", "--stats", stats
    )
    assert code == 0, err
    (record,) = json.loads(stats.read_text())
    assert (record["noise"], record["rule"], record["classical"]) == (0.1, "ddnm+", "non-local means")
    assert record["rule_settings"] == {"sigma_y": 0.2, "eta": 0.85}
    y = tmp_path / "y.safetensors"
    assert deqir("degrade", photo, "--task", "sr", "--noise", "0.05", "--seed", "3", "--out", y)[0] == 0
    code, _, err = deqir("restore", y, "--out", tmp_path / "o", "--stats", stats, "--overwrite")
    assert code == 0, err
    assert json.loads(stats.read_text())[0]["noise"] == 0.05


def test_denoising_needs_the_noise_level(deqir, photo, tmp_path):
    for extra in ([], ["--simulate"], ["--noise", "-1"], ["--noise", "nan"]):
        code, _, err = deqir("restore", photo, "--task", "denoise", "--out", tmp_path / "o", *extra)
        assert code in (1, 2)
        assert "noise level" in sentence(err)


def test_a_perfect_result_is_recorded_without_infinity(deqir, photo, tmp_path):
    stats = tmp_path / "s.json"
    code, out, err = deqir(
        "restore", photo, "--simulate", "--task", "inpaint", "--hidden", "0", "--out", tmp_path / "o", "--stats", stats
    )
    assert code == 0, err
    assert json.loads(stats.read_text())[0]["classical_psnr"] is None
    assert "(biharmonic infinite)" in out


def test_a_photo_is_never_replaced_by_its_result(deqir, photo):
    before = photo.read_bytes()
    code, _, err = deqir("restore", photo, "--task", "sr", "--out", photo.parent, "--overwrite")
    assert code == 1
    assert "would replace the photo itself" in sentence(err)
    code, _, err = deqir("degrade", photo, "--task", "sr", "--out", photo, "--overwrite")
    assert code == 1
    assert "would replace the photo itself" in sentence(err)
    assert photo.read_bytes() == before


def test_an_absurd_size_is_refused(deqir, photo, tmp_path):
    code, _, err = deqir("restore", photo, "--task", "sr", "--scale", "2000", "--out", tmp_path / "o")
    assert code == 1
    assert "would become 42000 x 38000 pixels" in sentence(err)


def test_an_unforeseen_failure_is_one_sentence_and_the_others_go_on(deqir, photo, tmp_path, monkeypatch):
    import deqir.jobs as jobs

    def broken(*arguments, **keywords):
        raise ZeroDivisionError("something\nunforeseen")

    monkeypatch.setattr(jobs, "write_image", broken)
    code, _, err = deqir("restore", photo, photo, "--task", "sr", "--out", tmp_path / "o")
    assert code == 1
    assert err.count("ZeroDivisionError: something; please report this") == 2
    assert "0 of 2 restored" in err


def test_same_stems_get_different_names(tmp_path):
    files = [tmp_path / name for name in ("a.png", "a.jpg", "b.png", "sub/b2.png", "sub2/b2.png")]
    names = [path.name for path in targets(files, tmp_path)]
    assert names == ["a.png.png", "a.jpg.png", "b.png", "b2.png.png", "b2.png-2.png"]


def test_the_parallel_solvers_work_from_the_command_line(deqir, photo, tmp_path):
    images = []
    for solver in ("serial", "picard", "anderson", "preconditioned"):
        out = tmp_path / solver
        code, _, err = deqir("restore", photo, "--task", "sr", "--out", out, "--solver", solver, "--tolerance", "0")
        assert code == 0, err
        images.append(read_image(out / "photo.png"))
    for image in images[1:]:
        assert (images[0] - image).abs().max() <= 1.01 / 255


@pytest.mark.parametrize("rule", ["ddnm", "ddnm+", "diffpir", "ddrm"])
def test_rules_and_time_travel_from_the_command_line(deqir, photo, tmp_path, rule):
    stats = tmp_path / "s.json"
    arguments = ("--simulate", "--task", "sr", "--noise", "0.05", "--rule", rule, "--stats", stats)
    travel = ("--travel-length", "2", "--travel-repeat", "2")
    code, _, err = deqir("restore", photo, "--out", tmp_path / "o", *arguments, *travel, "--solver", "serial")
    assert code == 0, err
    (record,) = json.loads(stats.read_text())
    assert (record["rule"], record["travel_length"], record["travel_repeat"]) == (rule, 2, 2)
    assert record["rule_settings"].get("sigma_y") == (None if rule == "ddnm" else 0.1)
    assert (record["steps"], record["nfe"]) == (3, 5)


def test_help_and_version():
    run = subprocess.run([sys.executable, "-m", "deqir", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("deqir ")
    for command in ("restore", "degrade", "demo", "convert", "priors"):
        run = subprocess.run([sys.executable, "-m", "deqir", command, "--help"], capture_output=True, text=True)
        assert run.returncode == 0
        assert "Example:" in run.stdout
    bad = subprocess.run([sys.executable, "-m", "deqir", "restore", "--magic"], capture_output=True, text=True)
    assert bad.returncode == 2
    assert "--magic" in bad.stderr


def test_help_loads_few_modules_and_nothing_heavy():
    code = (
        "import atexit, sys; from deqir.cli import main; sys.argv = ['deqir', *sys.argv[1:]]\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    )
    for arguments in (["--help"], ["restore", "--help"]):
        run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        loaded = run.stderr.split()
        assert "deqir.cli.restore" in loaded
        assert not {"torch", "diffusers", "numpy", "scipy", "PIL", "huggingface_hub", "safetensors"} & set(loaded)
        assert len(loaded) < 600  # some 350, most of them Python's own, typer's and rich's


def test_an_interrupt_keeps_finished_results_and_leaves_no_half_file(photo, tmp_path, prior_folder):
    for number in range(30):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number:02}.png").write_bytes(photo.read_bytes())
    stats = tmp_path / "stats.json"
    command = [sys.executable, "-m", "deqir", "restore", tmp_path / "in", "--task", "sr", "--out", tmp_path / "o",
               "--prior", prior_folder, "--steps", "40", "--stats", stats]  # fmt: skip
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # a background job ignores SIGINT
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **heed) as process:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "o").glob("*.png"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    written = sorted((tmp_path / "o").glob("*.png"))
    assert len(list((tmp_path / "o").iterdir())) == len(written) + 1  # and the manifest
    assert 1 <= len(written) < 30
    for path in written:
        assert path.suffix == ".png"
        assert read_image(path).shape == (3, 76, 84)
    assert json.loads(stats.read_text())[0]["status"] == "converged"
