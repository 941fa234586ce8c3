"""Unpack the wallpaper packages and store every listed photograph at a few sizes.

    python training/prepare.py --work DIR [--debs DIR_WITH_DEB_FILES]

Without ``--debs`` the packages are downloaded with ``apt-get download``.  Each photograph is reduced with a
Lanczos filter, so that its JPEG artefacts and sensor noise vanish, to the long sides in ``SIZES``, and written
as one uint8 ``.npy`` file per size (H, W, 3).
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = (1600, 1130, 800, 566, 400)
LISTING = Path(__file__).with_name("photographs.json")


def unpack(packages: list[str], debs: Path | None, work: Path) -> Path:
    """Extract ``packages`` below ``work`` and return the folder that stands for /usr/share."""
    if debs is None:
        debs = work / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", *packages], cwd=debs, check=True)
    root = work / "root"
    for package in packages:
        (deb,) = debs.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", str(deb), str(root)], check=True)
    return root / "usr" / "share"


def store(photograph: Path, out: Path) -> None:
    """Write ``photograph`` at every size of ``SIZES`` that does not enlarge it."""
    with Image.open(photograph) as opened:
        image = opened.convert("RGB")
    for size in SIZES:
        factor = size / max(image.size)
        if factor <= 1:
            reduced = image.resize([round(side * factor) for side in image.size], Image.Resampling.LANCZOS)
            np.save(out / f"{photograph.parent.name}-{photograph.stem}-{size}.npy", np.asarray(reduced))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--debs", type=Path)
    args = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    listing = json.loads(LISTING.read_text())["packages"]
    share = unpack(sorted(listing), args.debs, args.work)
    out = args.work / "photographs"
    out.mkdir(parents=True, exist_ok=True)
    for package, photographs in listing.items():
        for path in photographs:
            source = share / path
            # Plasma's 2560x1600 file of "images" has the photograph's name two folders up.
            target = share / f"{source.parents[2].name}.jpg" if source.stem == "2560x1600" else source
            if target != source:
                target.write_bytes(source.read_bytes())
            store(target, out)
        print(f"{package}: {len(photographs)} photographs")


if __name__ == "__main__":
    main()
