"""A few thousand mutated files: each is read or refused in one sentence; bombs and code are refused."""

import json
import os
import pickle
import random
import struct
import time
import tracemalloc
import zlib
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from PIL import Image
from readers import CORPUS, READERS, SIZE, attempt, corpus_of, mutate, write_corpus
from safetensors.torch import save_file

from conftest import sentence
from deqir.benchmark.journal import Journal
from deqir.benchmark.plans import read_plan
from deqir.errors import DeqirError, ImageReadError, OptionError, UnsupportedCheckpointError
from deqir.images import frame_count, read_image, read_photo
from deqir.images.png import with_chunk
from deqir.items import frames
from deqir.observations import read_observation
from deqir.priors.checkpoint_file import read_checkpoint
from deqir.priors.diffusers_folder import read_json
from deqir.priors.networks import build_network
from deqir.priors.scheduler_config import VARIANCE_EXPLODING, read_exploding_schedule, read_schedule
from deqir.reproduction import Outcome

INPUTS = 400
LENIENT = ("manifest", "journal")
"""What is damaged in one of these is passed over."""

CRASHERS = sorted((CORPUS / "crashers").iterdir())


@pytest.mark.parametrize("name", READERS)
def test_the_files_before_mutation_are_read(tmp_path, name):
    for seed in READERS[name].seeds:
        path = tmp_path / seed
        path.write_bytes((CORPUS / seed).read_bytes())
        assert attempt(READERS[name], path) == "read"


def test_the_corpus_is_small_and_can_be_made_again(tmp_path):
    write_corpus(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in CORPUS.iterdir()} - {"crashers"}
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < 100_000


def test_every_reader_has_seeds_and_every_crasher_a_reader():
    assert all(corpus_of(name) for name in READERS)
    assert {crasher.name.split("-")[0] for crasher in CRASHERS} <= READERS.keys()
    assert len(CRASHERS) >= 15


@pytest.mark.parametrize("crasher", CRASHERS, ids=lambda crasher: crasher.name)
def test_what_broke_a_reader_once_is_read_or_refused(tmp_path, crasher):
    path = tmp_path / f"input{crasher.suffix}"
    path.write_bytes(crasher.read_bytes())
    assert attempt(READERS[crasher.name.split("-")[0]], path) in ("read", "refused")


def test_the_records_of_the_corpus_are_made_again(tmp_path):
    verdicts = []
    for name in READERS["records"].seeds:
        path = tmp_path / name
        path.write_bytes((CORPUS / name).read_bytes())
        verdicts += READERS["records"].read(path)
    outcomes = [verdict.outcome for verdict in verdicts]
    assert outcomes == [Outcome.DIFFERENT, Outcome.NOT_REPEATED, Outcome.DIFFERENT]
    assert verdicts[0].detail.startswith("in size") and verdicts[1].detail == "it failed when it was recorded"


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_are_read_or_refused(tmp_path, name):
    outcomes = {"read": 0, "refused": 0}
    seeds = corpus_of(name)
    for number in range(INPUTS):
        dice = random.Random(f"{name} {number}")
        seed = dice.choice(sorted(seeds))
        path = tmp_path / f"input{os.path.splitext(seed)[1]}"
        path.write_bytes(mutate(seeds[seed], dice))
        outcomes[attempt(READERS[name], path)] += 1
    assert outcomes["read"] > INPUTS // 100
    assert outcomes["refused"] > INPUTS // 100 or name in LENIENT


def png_of(width, height, compressed):
    """A PNG of one grey channel whose header claims ``width`` x ``height`` pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(30_000, 30_000, zlib.compress(bytes(10_000_000), 9)))
    tracemalloc.start()
    with pytest.raises(ImageReadError, match="30000 x 30000 pixels, more than the 200000000 allowed"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_the_limit_can_be_set(tmp_path):
    Image.fromarray(np.zeros((50, 60), np.uint8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=3000).shape == (1, 50, 60)
    with pytest.raises(ImageReadError, match="more than the 2999 allowed"):
        read_image(tmp_path / "a.png", max_pixels=2999)


def test_the_limit_of_a_whole_command_can_be_set(deqir, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("DEQIR_MAX_PIXELS", "1000")
    arguments = ("restore", photo, "--task", "sr", "--scale", "2", "--out", tmp_path / "o")
    assert "would become 42 x 38 pixels, more than 1,000" in sentence(deqir(*arguments)[2])
    monkeypatch.setenv("DEQIR_MAX_PIXELS", "398")
    assert "more than the 398 allowed; make it smaller, or raise DEQIR_MAX_PIXELS" in sentence(deqir(*arguments)[2])
    for wrong in ("", "-1", "many", "1e6", "9" * 5000):
        monkeypatch.setenv("DEQIR_MAX_PIXELS", wrong)
        assert "DEQIR_MAX_PIXELS is" in sentence(deqir(*arguments)[2])
    assert not list((tmp_path / "o").glob("*"))


def test_a_gif_with_a_huge_later_frame_is_refused(tmp_path):
    data = bytearray((CORPUS / "film.gif").read_bytes())
    descriptor = b"," + struct.pack("<HHHH", 0, 0, SIZE[1], SIZE[0])  # left, top, width, height of a frame
    second = data.index(descriptor, data.index(descriptor) + 1)
    data[second + 5 : second + 9] = struct.pack("<HH", 60_000, 60_000)
    (tmp_path / "film.gif").write_bytes(data)
    with pytest.raises(ImageReadError, match="a frame of more pixels than are allowed"):
        read_photo(tmp_path / "film.gif", 1)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def test_an_animation_that_claims_two_billion_frames_has_those_it_holds(tmp_path):
    path = tmp_path / "film.png"
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    frame = struct.pack(">IIIIIHHBB", 0, 4, 4, 0, 0, 1, 1, 0, 0)
    parts = {b"IHDR": header, b"acTL": struct.pack(">II", 2**31 - 1, 0), b"fcTL": frame,
             b"IDAT": zlib.compress(bytes(20)), b"IEND": b""}  # fmt: skip
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts.items()))
    listed = frames(path, tmp_path / "o.png")
    assert len(listed) <= 3
    assert read_photo(path).image.shape == (1, 4, 4)
    with pytest.raises(ImageReadError):
        read_photo(path, len(listed) - 1)
    assert [frame_count(CORPUS / name) for name in ("film.png", "film.gif", "pages.tif", "grey.png")] == [3, 3, 3, 1]


def test_directories_of_a_tiff_that_overlap_are_bounded(tmp_path):
    entries, pages, first, step = 65535, 200, 8, 8
    data = bytearray(first + pages * step + 2 + 12 * entries + 16)
    data[:8] = b"II*\0" + struct.pack("<I", first)
    for page in range(pages):
        struct.pack_into("<H", data, first + page * step, entries)
    for page in range(pages - 1):
        struct.pack_into("<I", data, first + page * step + 2 + 12 * entries, first + (page + 1) * step)
    path = tmp_path / "over.tif"
    path.write_bytes(data)
    started = time.process_time()
    with pytest.raises(ImageReadError, match="directories have more than 500000 entries"):
        frame_count(path)
    assert time.process_time() - started < 10


def tiff_of_two_sizes(first, second):
    """A TIFF of 16-bit colour that says it is a square of side ``first``, and of side ``second``."""
    packed = zlib.compress(bytes(first * first * 6), 9)
    entries = [(256, first), (257, first), (258, 0), (259, 8), (262, 2), (273, 0), (277, 3), (278, first),
               (279, len(packed)), (256, second), (257, second)]  # fmt: skip
    bits = 8 + 2 + 12 * len(entries) + 4
    values = {258: bits, 273: bits + 6}
    data = b"II*\0" + struct.pack("<IH", 8, len(entries))
    for tag, value in entries:
        kind, count = (3, 3) if tag == 258 else (4, 1)
        data += struct.pack("<HHII", tag, kind, count, values.get(tag, value))
    return data + bytes(4) + struct.pack("<HHH", 16, 16, 16) + packed


def test_a_tiff_that_gives_its_size_twice_is_refused(tmp_path):
    path = tmp_path / "dup.tif"
    path.write_bytes(tiff_of_two_sizes(1200, 10))
    for read in (lambda: read_image(path, 1000), lambda: read_photo(path)):
        with pytest.raises(ImageReadError, match="it gives its width twice"):
            read()


DEEP = "[" * 100_000


def test_json_and_yaml_that_are_nested_too_deeply_are_refused(tmp_path):
    path = tmp_path / "deep"
    path.write_text(DEEP)
    with pytest.raises(UnsupportedCheckpointError, match="is not readable JSON"):
        read_json(path)
    for text in (DEEP[:20_000], "tasks: 2001-99-99"):
        path.write_text(text)
        with pytest.raises(OptionError, match=r"the plan .* cannot be read"):
            read_plan(path)
    path.write_text(f'{DEEP}\n{{"key": "one"}}\n')
    assert Journal(path).read() == {"one": {"key": "one"}}


@pytest.mark.parametrize("name", ["float8", "axes"])
def test_observations_of_strange_tensors_are_refused(tmp_path, name):
    value = torch.zeros(3, 4).to(torch.float8_e4m3fn) if name == "float8" else torch.zeros([1] * 60)
    save_file({"value": value}, tmp_path / "y.safetensors")
    data = (tmp_path / "y.safetensors").read_bytes()
    if name == "axes":  # more than torch can hold
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        header["value"]["shape"] = [1] * 100
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + data[8 + length :]
        assert attempt(READERS["observation"], tmp_path / "y.safetensors") == "refused"
    (tmp_path / "y.safetensors").write_bytes(data)
    with pytest.raises(ImageReadError):
        read_observation(tmp_path / "y.safetensors")


def test_a_network_without_levels_is_refused():
    with pytest.raises(UnsupportedCheckpointError, match="no UNet2DModel that can be built"):
        build_network({"block_out_channels": [], "down_block_types": [], "up_block_types": []}, "config.json", 10**6)
    with pytest.raises(UnsupportedCheckpointError, match="no UNet2DModel that can be built"):
        build_network({"block_out_channels": []}, "config.json", 10**6)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt"])
def test_a_bomb_in_what_is_beside_the_pixels_is_bounded(tmp_path, kind):
    packed = zlib.compress(bytes(200_000_000), 9)
    start = {b"zTXt": b"deqir\0\0", b"iCCP": b"profile\0\0", b"iTXt": b"deqir\0\1\0\0\0"}[kind]
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / "plain.png")
    path = tmp_path / "bomb.png"
    path.write_bytes(with_chunk((tmp_path / "plain.png").read_bytes(), kind, start + packed))
    tracemalloc.start()
    try:
        read_observation(path)
    except ImageReadError as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_safetensors_header_that_claims_terabytes(tmp_path):
    header = json.dumps({"value": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path = tmp_path / "y.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ImageReadError, match="not a readable safetensors file"):
        read_observation(path)
    with pytest.raises(UnsupportedCheckpointError, match="cannot be read safely"):
        read_checkpoint(path)


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
    torch.save({"conv_in.weight": torch.zeros(5_000_000)}, plain)
    with ZipFile(plain) as parts, ZipFile(packed, "w", ZIP_DEFLATED) as smaller:
        for name in parts.namelist():
            smaller.writestr(name, parts.read(name))
    assert packed.stat().st_size < plain.stat().st_size / 100
    assert len(read_checkpoint(plain)["conv_in.weight"]) == 5_000_000
    with pytest.raises(UnsupportedCheckpointError, match=r"its parts unpack to 20\d{6} bytes, more than the file has"):
        read_checkpoint(packed)


def test_names_in_a_checkpoint_are_no_files(tmp_path):
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    torch.save({"conv_in.weight": torch.ones(2)}, folder / "a.pt")
    with ZipFile(folder / "a.pt", "a") as parts:
        parts.writestr("../../outside.txt", b"here")
        parts.writestr(f"{tmp_path}/outside.txt", b"here")
    with pytest.raises(UnsupportedCheckpointError, match="cannot be read safely"):
        read_checkpoint(folder / "a.pt")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.pt"]


@pytest.mark.parametrize("kind", ["DDPMScheduler", VARIANCE_EXPLODING])
@pytest.mark.parametrize("length", ["NaN", "1e400", "5050505050505050", "100001", "null", "[3]", '"many"', "-1"])
def test_a_schedule_of_absurd_length_is_refused(tmp_path, kind, length):
    path = tmp_path / "scheduler_config.json"
    path.write_text(f'{{"_class_name": "{kind}", "beta_schedule": "linear", "num_train_timesteps": {length}}}')
    read = read_schedule if kind == "DDPMScheduler" else read_exploding_schedule
    with pytest.raises(DeqirError) as caught:
        read(read_json(path), path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sigmas", ['"sigma_min": 0', '"sigma_max": "x"', '"sigma_min": null'])
def test_noise_levels_that_are_none_are_refused(tmp_path, sigmas):
    path = tmp_path / "scheduler_config.json"
    path.write_text(f'{{"_class_name": "{VARIANCE_EXPLODING}", {sigmas}}}')
    with pytest.raises(UnsupportedCheckpointError, match="a number that does not fit"):
        read_exploding_schedule(read_json(path), path)


class Code:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


ATTACKS = (os.system, "true"), (eval, "1"), (__import__, "os"), (open, "/dev/null"), (torch.load, "x"), (np.load, "x")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack[0].__module__}.{attack[0].__name__}")
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_pickles_that_call_anything_are_refused(tmp_path, attack, how):
    content = {"state_dict": {"conv_in.weight": torch.ones(2)}, "hook": Code(*attack)}
    path = tmp_path / "file.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(UnsupportedCheckpointError, match="cannot be read safely"):
        read_checkpoint(path)
