"""What is wrong with a command whatever its files hold: said once, before anything is touched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deqir.errors import DeqirError, OptionError

if TYPE_CHECKING:
    from deqir.outputs import Record

OBSERVATION_SUFFIXES = (".png", ".safetensors")
"""Files that can carry their task."""


def checked_files(
    photos: list[Path], recursive: bool, out_dir: Path, stats: Path | None
) -> tuple[list[Path], list[Record]]:
    """The files that are meant, and a record of failure for all that is none and every folder without any.

    Raises OptionError where results or records would go where they do harm.
    """
    from deqir.images import IMAGE_SUFFIXES, find_images
    from deqir.records import failure

    files: list[Path] = []
    failed: list[Record] = []
    for photo in photos:
        try:
            files += find_images(photo, recursive, (*IMAGE_SUFFIXES, ".safetensors"))
        except DeqirError as error:
            failed.append(failure(photo, error))
    _check_places(photos, out_dir, recursive)
    if stats is not None:
        _check_stats(stats, files, out_dir)
    return files, failed


def check_task(settings: dict[str, Any], noise: Any, simulate: bool) -> None:
    """Raise OptionError where no photo at all could be restored with the task that ``settings`` describe."""
    from deqir.old_photo import DETECT
    from deqir.problems import checked_noise, task_from

    if noise == "auto" and simulate:
        raise OptionError("simulate adds noise, so it needs its level; give noise a number instead of auto")
    if "name" not in settings and not simulate:
        return
    task = task_from(settings, {})
    if simulate and task.name == "auto":
        raise OptionError("task auto looks for what is wrong with a photo and makes nothing worse; name another --task")
    if simulate and task.name == "old-photo" and task.mask == DETECT:
        raise OptionError(
            "damage is detected in old photos as they are; to simulate it give --mask scratches, or a file"
        )
    if noise != "auto" and (noise is not None or simulate):
        checked_noise(task, noise or 0.0)
    try:
        task.check_files()
    except DeqirError as error:
        raise OptionError(str(error)) from error


def check_told(settings: dict[str, Any], noise: Any, simulate: bool, files: list[Path]) -> None:
    """Raise OptionError where neither the command nor any of ``files`` tells the task, or the noise that it needs."""
    if simulate or not files:
        return
    if "name" not in settings and not any(_may_carry(file, "task") for file in files):
        raise OptionError("no task is given and no file carries one; choose one with --task")
    if settings.get("name") == "denoise" and noise is None and not any(_may_carry(file, "noise") for file in files):
        raise OptionError("task denoise needs the noise level; give --noise, in units of 0..1, or --noise auto")


def _may_carry(file: Path, key: str) -> bool:
    """Whether ``file`` carries ``key``, or cannot be read, which is said in its turn."""
    from deqir.images import read_metadata

    if file.suffix.lower() not in OBSERVATION_SUFFIXES:
        return False
    try:
        return key in (read_metadata(file) or {})
    except DeqirError:
        return True


def _check_places(photos: list[Path], out_dir: Path, recursive: bool) -> None:
    """Raise OptionError where results would lie in a folder of photos, and be restored themselves the next time."""
    for photo in photos:
        folder, out = photo.resolve(), out_dir.resolve()
        if photo.is_dir() and (folder == out or (recursive and folder in out.parents)):
            raise OptionError(
                f"the results would lie in the folder {photo} of the photos and be restored the next time; "
                "choose another --out"
            )


def _check_stats(stats: Path, files: list[Path], out_dir: Path) -> None:
    """Raise OptionError where the records would replace a photo, a result or a manifest, or ``stats`` is a folder."""
    from deqir.images import IMAGE_SUFFIXES

    place = stats.resolve()
    if stats.is_dir():
        raise OptionError(f"stats {stats} is a folder; name a file in it, such as {stats / 'run.json'}")
    if any(place == file.resolve() for file in files):
        raise OptionError(f"stats {stats} is one of the photos; choose another name, such as run.json")
    if stats.suffix.lower() in (*IMAGE_SUFFIXES, ".safetensors"):
        raise OptionError(f"stats {stats} is named like an image; choose another name, such as run.json")
    if place.parent == out_dir.resolve() and stats.match("manifest*.jsonl"):
        raise OptionError(f"stats {stats} is the manifest's name; choose another, such as run.json")
