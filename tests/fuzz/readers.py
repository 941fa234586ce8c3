"""Everything that reads a file of a stranger, with files of each kind to mutate.

``corpus/`` keeps them: one small valid file of each kind, made by ``write_corpus``, and in ``corpus/crashers`` every
input that ever broke a reader, named after it. New ones are added by hand; the fuzzer mutates them, too.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import torch
import typer
from PIL import Image
from safetensors.torch import save_file

from deqir.benchmark.journal import Journal
from deqir.benchmark.plans import plan_from_settings, read_plan
from deqir.cli.app import app
from deqir.cli.config import use_config
from deqir.errors import DeqirError, OutputError
from deqir.images import frame_count, read_image, read_mask, read_metadata, read_photo, write_image
from deqir.jobs import RestoreJob
from deqir.manifest import open_manifest
from deqir.observations import Observation, read_observation, write_observation
from deqir.operators import kernel_from_image
from deqir.priors import DiffusersDenoiser, save_prior
from deqir.priors.checkpoint_file import network_state, read_checkpoint
from deqir.priors.diffusers_folder import read_json
from deqir.priors.loading import FAMILIES
from deqir.priors.networks import build_network
from deqir.priors.scheduler_config import read_schedule
from deqir.reproduction import Verdict, read_records, verify_record
from deqir.schedule import NoiseSchedule
from deqir.tasks import Task

CORPUS = Path(__file__).parent / "corpus"
MAX_PIXELS = 1_000_000
MAX_PARAMETERS = 100_000
SIZE = (6, 7)
HERE = b"@"
"""In a file of records: the folder with the photo, the prior and the earlier result that the records tell of."""


def photo(path: Path) -> None:
    """A photo, all its frames and its metadata."""
    for frame in range(frame_count(path, MAX_PIXELS)):
        read_photo(path, frame, MAX_PIXELS)
    read_metadata(path)


def kernel(path: Path) -> None:
    """A blur kernel from its picture."""
    kernel_from_image(read_image(path, MAX_PIXELS))


def observation(path: Path) -> None:
    """An observation and the problem that its metadata state."""
    read_observation(path)
    RestoreJob(prior=None, task_settings={}).problem(path)


def checkpoint(path: Path) -> None:
    """A checkpoint, to the state dict of its network."""
    network_state(path, read_checkpoint(path), tuple(FAMILIES), prefer_ema=True)


def settings(path: Path) -> None:
    """The JSON of a scheduler, and of a task."""
    content = read_json(path)
    Task.from_settings(content) if "name" in content else read_schedule(content, path)


def manifest(path: Path) -> None:
    """A manifest beside the result that it tells of, as a run that goes on reads it."""
    with TemporaryDirectory() as folder:
        result = Path(folder, "a.png")
        result.write_bytes(b"result")
        Path(folder, "manifest.jsonl").write_bytes(path.read_bytes())
        known = open_manifest(Path(folder), {"steps": 3})
        known.is_done(result, path)
        with suppress(OutputError):
            known.refuse_foreign(result, path)


@cache
def recorded() -> TemporaryDirectory[str]:
    """A folder with what the records of the corpus tell of: a photo, a tiny prior and an earlier result."""
    folder = TemporaryDirectory()
    torch.manual_seed(0)
    model = build_network(read_json(CORPUS / "config.json"), "config.json", MAX_PARAMETERS)
    save_prior(DiffusersDenoiser(model, NoiseSchedule.linear(50), "epsilon"), Path(folder.name, "prior"))
    for name, file in (("photo.png", "grey.png"), ("a.png", "deep.png")):
        copyfile(CORPUS / file, Path(folder.name, name))
    return folder


def records(path: Path) -> list[Verdict]:
    """The records of a run or of a command, each made again and compared."""
    path.write_bytes(path.read_bytes().replace(HERE, recorded().name.encode()))
    copyfile(CORPUS / "deep.png", path.with_name("a.png"))  # the results of a command lie beside its record

    def stand_in(record: dict[str, object], folder: Path) -> None:  # for the command line, whose options are many
        copyfile(CORPUS / "grey.png", folder / "a.png")

    return [verify_record(record, run_again=stand_in) for record in read_records(path)]


def network(path: Path) -> None:
    """The network that the config.json of a diffusers folder describes."""
    build_network(read_json(path), path.name, MAX_PARAMETERS)


def journal(path: Path) -> None:
    """The journal of a benchmark, which then goes on."""
    Journal(path).read()
    Journal(path).add("sr", {"psnr": 1.0})


@cache
def restore_command() -> object:
    """``deqir restore`` with its options."""
    return typer.main.get_command(app).commands["restore"]


def config(path: Path) -> None:
    """Options of ``deqir restore`` from a file."""
    use_config(SimpleNamespace(command=restore_command(), info_name="restore", default_map=None), None, path)


@dataclass(frozen=True)
class Reader:
    """``read`` raises DeqirError or returns; ``seeds`` are the names of valid files, to be found in the corpus."""

    read: Callable[[Path], object]
    seeds: tuple[str, ...]


READERS = {
    "image": Reader(photo, ("grey.png", "deep.png", "colour.jpg", "colour.webp", "colour.tif", "deep.tif", "pages.tif",
                            "film.gif", "film.png", "plain.bmp", "palette.png", "cmyk.jpg")),
    "mask": Reader(lambda path: read_mask(path, SIZE), ("grey.png", "plain.bmp", "palette.png")),
    "kernel": Reader(kernel, ("grey.png", "deep.png", "deep.tif")),
    "observation": Reader(observation, ("y.png", "y.safetensors", "cs.safetensors")),
    "settings": Reader(settings, ("scheduler.json", "task.json")),
    "checkpoint": Reader(checkpoint, ("zip.pt", "legacy.pt", "plain.safetensors")),
    "manifest": Reader(manifest, ("manifest.jsonl",)),
    "records": Reader(records, ("run.json", "command.json")),
    "network": Reader(network, ("config.json",)),
    "journal": Reader(journal, ("journal.jsonl",)),
    "plan": Reader(lambda path: plan_from_settings(read_plan(path)), ("plan.yaml",)),
    "config": Reader(config, ("options.json", "saved.json")),
}  # fmt: skip


def corpus_of(name: str) -> dict[str, bytes]:
    """What the fuzzer mutates for the reader ``name``: its valid files and those that broke it once, by file name."""
    files = [CORPUS / seed for seed in READERS[name].seeds] + sorted((CORPUS / "crashers").glob(f"{name}-*"))
    return {file.name: file.read_bytes() for file in files}


def write_corpus(folder: Path) -> None:
    """One small valid file of every kind."""
    dice = np.random.default_rng(0)
    grey = dice.integers(0, 255, SIZE, dtype=np.uint8)
    colour = dice.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey > 100).save(folder / "plain.bmp")
    Image.fromarray(colour).convert("P").save(folder / "palette.png", transparency=3)
    Image.fromarray(colour).convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[274] = 6
    for suffix in ("jpg", "webp", "tif"):
        Image.fromarray(colour).save(folder / f"colour.{suffix}", exif=exif)
    frames = [Image.fromarray(dice.integers(0, 255, (*SIZE, 3), dtype=np.uint8)) for _ in range(3)]
    for name in ("film.gif", "film.png", "pages.tif"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    image = torch.from_numpy(colour).permute(2, 0, 1) / 255
    for name in ("deep.png", "deep.tif"):
        write_image(folder / name, image, 16)
    described = {"task": {"name": "sr", "scale": 2}, "image_shape": [3, 12, 14], "noise": 0.1}
    write_observation(folder / "y.png", Observation(image, described))
    write_observation(folder / "y.safetensors", Observation(2 * image - 1, described))
    measured = {"task": {"name": "cs", "ratio": 0.5}, "image_shape": [1, 8, 8], "noise": 0.0}
    write_observation(folder / "cs.safetensors", Observation(torch.rand(1, 32), measured))
    scheduler = {"beta_schedule": "linear", "num_train_timesteps": 50, "prediction_type": "epsilon", "beta_end": 0.02}
    (folder / "scheduler.json").write_text(json.dumps(scheduler))
    (folder / "task.json").write_text(json.dumps({"name": "inpaint", "mask": "random", "hidden": 0.5, "mask_seed": 1}))
    state = {f"{anchor}": torch.ones(2, 3) for anchor in FAMILIES} | {"conv_in.bias": torch.ones(4)}
    torch.save({"state_dict": state, "epoch": 3}, folder / "zip.pt")
    torch.save([state, 1.5], folder / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file(state, folder / "plain.safetensors")
    made_of = {"path": "/photos/a.png", "bytes": 5, "modified_ns": 12345}
    line = {"file": "a.png", "status": "converged", "out": "a.png", "bytes": 6, "sha256": "00", "input": made_of,
            "settings": {"steps": 3}}  # fmt: skip
    failed = {"file": "b.png", "status": "failed", "out": "b.png", "error": "no", "settings": {"steps": 3}}
    (folder / "manifest.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(failed)}\n")
    photo, result = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("grey.png", "deep.png"))
    _write_records(folder, photo, result)
    _write_settings(folder)


def _write_records(folder: Path, photo: str, result: str) -> None:
    """Records of a photo and a result of those hashes, both in the folder called ``HERE``."""
    here = HERE.decode()
    job = {"origin": {"source": f"{here}/prior"}, "task_settings": {"name": "sr", "scale": 1}, "options": {"steps": 3},
           "seed": 0, "noise": None, "simulate": False, "bits": 8}  # fmt: skip
    done = {"file": f"{here}/photo.png", "frame": 0, "out": f"{here}/a.png", "job": job, "warm_start": False,
            "solver": "serial", "file_sha256": photo, "out_sha256": result, "tolerance": 0.5}  # fmt: skip
    (folder / "run.json").write_text(json.dumps([done, {"file": "b.png", "error": "no"}], indent=2))
    command = {"name": "invert", "options": {"steps": 3, "prior": f"{here}/prior"}}
    made = {"file": f"{here}/photo.png", "file_sha256": photo, "status": "converged", "command": command,
            "outputs": {"a.png": result}, "tolerance": 0.5}  # fmt: skip
    (folder / "command.json").write_text(json.dumps(made, indent=2))


def _write_settings(folder: Path) -> None:
    """A network's configuration, a benchmark's journal and plan, and options of the command line."""
    shape = {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "block_out_channels": [8, 16],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "_class_name": "UNet2DModel",
    }
    (folder / "config.json").write_text(json.dumps(shape, indent=2))
    lines = [{"key": "sr a.png", "psnr": 27.5}, {"key": "cs a.png", "psnr": 21.0}]
    (folder / "journal.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "plan.yaml").write_text(
        "tasks:\n- sr:scale=4,noise=0.05\n- {name: inpaint, mask: random}\nmethods: [serial, picard:ddnm, classical]\n"
        "steps: [10, 20]\neta: 0.85\nspacing: cubic\nfit: crop\nsize: 64\nseed: 1\n"
    )
    options = {"task": {"name": "sr", "scale": 2}, "steps": 20, "solver": "picard", "tolerance": 0.5, "quiet": True}
    (folder / "options.json").write_text(json.dumps(options, indent=2))
    saved = {"status": "converged", "note": "saved by the web page " * 20, "settings": {"steps": 20} | options}
    (folder / "saved.json").write_text(json.dumps(saved, indent=2))


INTERESTING = (
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\0",
    b"NaN",
    b"-1",
    b"1e400",
    b"9" * 20,
    b'"',
)


def mutate(data: bytes, dice: random.Random) -> bytes:
    """``data`` with one to four random edits: bits, telling values, cuts, repeats, and swapped or lost stretches."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        if not changed:
            return b""
        at, length = dice.randrange(len(changed)), dice.randint(1, 16)
        kind = dice.randrange(6)
        if kind == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            value = dice.choice(INTERESTING)
            changed[at : at + len(value)] = value
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length] * dice.randint(1, 8)
        elif kind == 4:
            changed[at : at + length] = dice.randbytes(length)
        else:
            del changed[at:]
    return bytes(changed)


def attempt(reader: Reader, path: Path) -> str:
    """``"read"`` or ``"refused"``; whatever else ``reader`` raises is a failure and passes through.

    Raises AssertionError where the refusal is not one sentence.
    """
    try:
        reader.read(path)
    except DeqirError as error:
        if not str(error) or "\n" in str(error) or len(str(error)) > 1000:
            raise AssertionError(f"the refusal is no sentence: {error}") from error
        return "refused"
    return "read"
