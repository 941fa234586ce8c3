"""``deqir optimize``, ``deqir invert`` and ``deqir explain`` on real files."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import deqir.noise_jobs
from conftest import sentence
from deqir.images import read_image, write_image

HALF = ("--task", "inpaint", "--hidden", "0.5", "--simulate")
STUDY = (*HALF, "--iterations", "3", "--solver", "serial")


def read(path):
    return json.loads(path.read_text())


def test_optimize_writes_everything_and_improves(deqir, photo, tmp_path):
    out = tmp_path / "o"
    code, said, heard = deqir("optimize", photo, "--guide", photo, *STUDY, "--out", out)
    assert code == 0
    assert {path.name for path in out.iterdir()} == {
        "photo.png",
        "photo-strip.png",
        "photo-noise.safetensors",
        "photo.json",
    }
    record = read(out / "photo.json")
    assert record["losses"][record["best"]] < record["losses"][0]
    assert record["psnr"] > record["plain_psnr"]
    assert record["stopped"] == "iterations"
    assert f"{record['psnr']:.2f} dB" in said
    assert heard.count("iteration ") == 3
    mask = read_image(photo) * 0 + 1
    assert read_image(out / "photo.png").shape == mask.shape
    assert read_image(out / "photo-strip.png").shape[2] > 4 * 110


def test_resume_goes_on_from_the_noise(deqir, photo, tmp_path):
    whole, parts = tmp_path / "w", tmp_path / "p"
    deqir("optimize", photo, "--guide", photo, *HALF, "--solver", "serial", "--iterations", "5", "--out", whole)
    deqir("optimize", photo, "--guide", photo, *HALF, "--solver", "serial", "--iterations", "2", "--out", parts)
    again = ("optimize", photo, "--guide", photo, *HALF, "--solver", "serial", "--iterations", "5", "--out", parts)
    assert "exists already" in sentence(deqir(*again)[2])
    assert deqir(*again, "--resume")[0] == 0
    losses = [torch.tensor(read(folder / "photo.json")["losses"]) for folder in (whole, parts)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-7)
    missing = ("optimize", photo, "--guide", photo, *STUDY, "--out", tmp_path / "n", "--resume")
    assert "nothing" not in (heard := deqir(*missing)[2]) and "to go on from" in sentence(heard)


def test_an_interrupt_keeps_the_best_and_ends_with_130(deqir, photo, tmp_path, monkeypatch):
    tell = __import__("deqir.cli.optimize", fromlist=["_tell"])

    def interrupt(iteration):
        if iteration.number == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(tell, "_tell", interrupt)
    code, _, heard = deqir("optimize", photo, "--guide", photo, *STUDY, "--out", tmp_path / "o")
    assert code == 130
    assert "--resume goes on" in heard
    assert read(tmp_path / "o" / "photo.json")["stopped"] == "interrupted"
    assert (tmp_path / "o" / "photo.png").exists()


def test_a_palette_steers_and_the_observation_stays(deqir, photo, tmp_path):
    reference = tmp_path / "red.png"
    write_image(
        reference,
        torch.rand(3, 9, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 0.2, 0.1]).view(3, 1, 1),
    )
    arguments = ("--task", "colorize", "--simulate", "--palette", reference, "--iterations", "6", "--solver", "serial")
    assert deqir("optimize", photo, *arguments, "--out", tmp_path / "o")[0] == 0
    record = read(tmp_path / "o" / "photo.json")
    assert record["losses"][record["best"]] < 0.9 * record["losses"][0]
    assert record["measurement_error"] < 1e-6


def test_optimize_names_what_is_wrong(deqir, photo, tmp_path):
    small = tmp_path / "small.png"
    write_image(small, torch.rand(3, 4, 4))
    network = tmp_path / "network.pth"
    network.write_bytes(b"no network")
    for arguments, match in (
        ((), "nothing to optimise for"),
        (("--guide", "mean", "--guide-network", network), "choose one of them"),
        (("--guide", small), "the guide"),
        (("--guide", tmp_path / "missing.png"), "missing.png"),
        (("--guide-network", network), "network.pth"),
        (("--guide", photo, "--optimizer", "sgd"), "optimizer is 'sgd'"),
        (("--guide", photo, "--iterations", "0"), "iterations is 0"),
    ):
        code, _, heard = deqir("optimize", photo, *HALF, *arguments, "--out", tmp_path / "o")
        assert code in (1, 2)
        assert match in sentence(heard)
        assert not list((tmp_path / "o").glob("*.png"))


def test_invert_writes_noise_that_makes_the_photo(deqir, photo, tmp_path):
    out = tmp_path / "o"
    code, said, _ = deqir("invert", photo, "--out", out, "--between", photo, "--frames", "3")
    assert code == 0
    record = read(out / "photo.json")
    assert load_file(out / "photo-noise.safetensors")["noise"].shape == (1, 3, 19, 21)
    assert f"{record['round_trip_psnr']:.1f} dB" in said
    assert record["round_trip_psnr"] > 40
    assert (read_image(out / "photo.png") - read_image(photo)).abs().max() < 0.05
    assert (out / "photo-to-photo.png").exists()
    small = tmp_path / "small.png"
    write_image(small, torch.rand(3, 4, 4))
    arguments = ("--out", tmp_path / "p", "--between", small)
    assert "differ in size" in sentence(deqir("invert", photo, *arguments)[2])
    assert "exists already" in sentence(deqir("invert", photo, "--out", out)[2])


def test_explain_shows_what_decided(deqir, photo, tmp_path):
    out = tmp_path / "o"
    code, said, _ = deqir("explain", photo, *HALF, "--region", "3,4,5,6", "--probes", "2", "--seeds", "2", "--out", out)
    assert code == 0
    record, maps = read(out / "photo.json"), load_file(out / "photo-maps.safetensors")
    assert record["region"] == "3,4,5,6"
    assert f"{record['region_spread']:.3f}" in said
    assert maps["observation"].shape == maps["spread"].shape == (3, 19, 21)
    assert maps["observation"].any()
    for end in ("", "-decided", "-noise", "-spread"):
        assert read_image(out / f"photo{end}.png").shape == (3, 19, 21)
    for region, match in (("1,2", "four whole numbers"), ("15,15,9,9", "beyond the image")):
        heard = deqir("explain", photo, *HALF, "--region", region, "--out", tmp_path / "p")[2]
        assert match in sentence(heard)


@pytest.mark.parametrize("width", [3, 48, 300])
def test_captions_have_room(width):
    zoom = deqir.noise_jobs.zoom_for(torch.zeros(1, 3, 8, width))
    assert zoom >= 1
    assert zoom * width >= 110
