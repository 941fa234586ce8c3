"""A folder restored by two processes and by one, and by one that is killed five times.

    python benchmarks/folders.py --out benchmarks/results

Forty photos of 24 pixels (windows of scikit-image's astronaut) are magnified four times with the built-in prior and the
serial solver, one thread a process. The two processes are started by torchrun. Seconds are those of the whole command,
start and loading included, and, to tell what the network's share is, those from the first result to the last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMAGES, SIDE, KILLS = 40, 24, 5


def make_photos(folder: Path) -> None:
    """``IMAGES`` windows of a photograph, cut along a diagonal."""
    import torch
    from skimage import data

    from deqir import write_image

    photo = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1).float() / 255
    folder.mkdir()
    for k in range(IMAGES):
        write_image(folder / f"{k:02}.png", photo[:, 8 * k : 8 * k + SIDE, 6 * k : 6 * k + SIDE])


def command(photos: Path, out: Path, steps: int, processes: int = 1) -> list[str]:
    """The command line that restores ``photos`` into ``out`` with some processes."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    arguments = [
        "restore",
        photos,
        "--task",
        "sr",
        "--scale",
        "4",
        "--steps",
        steps,
        "--solver",
        "serial",
        "--out",
        out,
    ]
    return [*launcher, "-m", "deqir", *map(str, arguments)]


def timed(photos: Path, out: Path, steps: int, processes: int) -> tuple[float, float, float]:
    """Seconds of the whole command; from the first results to the last, scaled to all; of processor time, all told."""
    started, used = time.perf_counter(), cpu_seconds()
    subprocess.run(command(photos, out, steps, processes), check=True, stdout=subprocess.DEVNULL)
    whole, used = time.perf_counter() - started, cpu_seconds() - used
    written = sorted(path.stat().st_mtime for path in out.glob("*.png"))
    assert len(written) == IMAGES
    first = 2 * processes  # the first batch of two of every process
    return whole, (written[-1] - written[first - 1]) * IMAGES / (IMAGES - first), used


def cpu_seconds() -> float:
    """The processor time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def killed(photos: Path, out: Path, steps: int, seconds: float) -> list[int]:
    """Start the command ``KILLS`` times, kill it at a random moment of its work, then let it end; results at each kill.

    ``seconds``: what all the work takes, of which a process gets at most about 1 / ``KILLS``.
    """
    moments, found = random.Random(0), []
    for _ in range(KILLS):
        before = len(list(out.glob("*.png")))
        with subprocess.Popen(command(photos, out, steps), stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and len(list(out.glob("*.png"))) == before:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, seconds / KILLS))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        found.append(len(list(out.glob("*.png"))))
    subprocess.run(command(photos, out, steps), check=True, stdout=subprocess.DEVNULL)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("manifest")}


def report(folder: Path, steps: int) -> str:
    """Run everything in ``folder`` and say in Markdown what came out."""
    make_photos(folder / "in")
    load = os.getloadavg()[0]
    one, one_files, one_used = timed(folder / "in", folder / "one", steps, 1)
    two, two_files, two_used = timed(folder / "in", folder / "two", steps, 2)
    after = os.getloadavg()[0]
    found = killed(folder / "in", folder / "killed", steps, one_files)
    whole = contents(folder / "one")
    same = sum(whole[name] == data for name, data in contents(folder / "killed").items())
    shared = sum(whole[name] == data for name, data in contents(folder / "two").items())
    stray = len(contents(folder / "killed").keys() - whole.keys())
    lines = [json.loads(line) for line in (folder / "killed" / "manifest.jsonl").read_text().splitlines()]
    return "\n".join(
        [
            f"{IMAGES} photos of {SIDE} pixels, sr x4, {steps} steps, one thread a process, {os.cpu_count()} cores, "
            f"load {load:.1f} before and {after:.1f} after the two timed runs (others use the machine).",
            "",
            "| | one process (s) | two processes (s) | times as fast |",
            "|---|---|---|---|",
            f"| whole command | {one:.1f} | {two:.1f} | {one / two:.2f} |",
            f"| first result to last, scaled to all files | {one_files:.1f} | {two_files:.1f} "
            f"| {one_files / two_files:.2f} |",
            f"| processor time, all processes and their start | {one_used:.1f} | {two_used:.1f} | |",
            "",
            f"Two processes: {shared} of {IMAGES} files equal those of one byte for byte.",
            f"Killed {KILLS} times, with {', '.join(map(str, found))} results there: {same} of {IMAGES} files equal "
            f"those of the undisturbed run byte for byte, {stray} other files, {len(lines)} lines in the manifest.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--steps", type=int, default=30)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        text = report(Path(folder), args.steps)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "folders.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
