"""Everything that reads a file of a stranger, with files of each kind to mutate.

``corpus/`` keeps them: one small valid file of each kind, made by ``write_corpus``, and in ``corpus/crashers`` every
input that ever broke a reader, named after it. New ones are added by hand; the fuzzer mutates them, too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from deqir.errors import DeqirError, OutputError
from deqir.images import frame_count, read_image, read_mask, read_metadata, read_photo, write_image
from deqir.jobs import RestoreJob
from deqir.manifest import open_manifest
from deqir.observations import Observation, read_observation, write_observation
from deqir.operators import kernel_from_image
from deqir.priors.checkpoint_file import network_state, read_checkpoint
from deqir.priors.diffusers_folder import read_json
from deqir.priors.loading import FAMILIES
from deqir.priors.scheduler_config import read_schedule
from deqir.reproduction import read_records, verify_record
from deqir.tasks import Task

CORPUS = Path(__file__).parent / "corpus"
MAX_PIXELS = 1_000_000
SIZE = (6, 7)


def photo(path: Path) -> None:
    """A photo, all its frames and its metadata."""
    for frame in range(min(3, frame_count(path, MAX_PIXELS))):
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


def records(path: Path) -> None:
    """The records of a run, as far as the photograph that is not there."""
    for record in read_records(path):
        verify_record(record)


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
    "records": Reader(records, ("run.json",)),
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
    job = {"origin": {"source": "none"}, "task_settings": {"name": "sr"}, "options": {"steps": 3}, "seed": 0,
           "noise": None, "simulate": False, "bits": 8}  # fmt: skip
    done = {"file": "no-such.png", "frame": 0, "out": "a.png", "job": job, "warm_start": False, "solver": "serial",
            "file_sha256": "00", "out_sha256": "00", "tolerance": 0.5}  # fmt: skip
    (folder / "run.json").write_text(json.dumps([done, {"file": "b.png", "error": "no"}], indent=2))


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
