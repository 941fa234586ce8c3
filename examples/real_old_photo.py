"""A real old photo: what deqir finds by itself, what a brush adds, and what becomes of both.

Writes real-old-photo.png (restored), real-old-photo-mask.png (black was filled) and real-old-photo-sheet.png. The scan
is bundled: a detail of a portrait of Walt Whitman by Mathew Brady's studio, in the public domain
(src/deqir/data/README.md). Its truth is not known, so there are no figures, only pictures.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

import deqir
from deqir.appraisal import appraise
from deqir.demo import OLD_PHOTO
from deqir.images import read_image
from deqir.old_photo import TRAVEL, classical_old_photo
from deqir.sheet import Picture, draw_sheet
from deqir.tasks import Task

FLAKE = [
    (326, 313), (343, 316), (363, 340), (381, 346), (389, 354), (385, 364), (370, 371), (349, 363),
    (328, 347), (323, 327),
]  # fmt: skip
SPOTS = [(72, 414, 17), (286, 415, 10), (379, 157, 8), (52, 198, 5)]
"""Where the emulsion flaked off, as one would paint it: a polygon, and discs of x, y and radius in pixels."""

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--out", type=Path, default=Path())
args = parser.parse_args()

scan = read_image(OLD_PHOTO)[None]  # (1, 1, 431, 480), values in [0, 1]
height, width = scan.shape[2:]
found = appraise(Task.from_settings({"name": "old-photo"}), scan, noise=None, quantization=None)
print(found.findings["assumed"])

brush = Image.new("1", (width, height), 1)  # 1 is kept, as in a mask file
ImageDraw.Draw(brush).polygon(FLAKE, fill=0)
for x, y, radius in SPOTS:
    ImageDraw.Draw(brush).ellipse((x - radius, y - radius, x + radius, y + radius), fill=0)
args.out.mkdir(parents=True, exist_ok=True)
brush.convert("L").save(args.out / "real-old-photo-mask.png")
mask = found.mask * read_image(args.out / "real-old-photo-mask.png")[None]
print(f"with the brush: {float((mask == 0).double().mean()):.1%} of the photo")

operator = found.task.operator((3, height, width), mask)
restorer = deqir.Restorer(
    deqir.load_prior(), operator, args.steps, noise=found.noise, solver="serial", average=0.05, **TRAVEL
)
observed = operator.forward(found.y.expand(1, 3, -1, -1))  # grey, for a prior of colours
restored = restorer.restore(observed, seed=0).image.mean(1, keepdim=True).clamp(0, 1)
classical = classical_old_photo(found.y, mask, 1, False, found.noise)

titles = ["the scan, about 1862", "known", "Telea, non-local means", "restored"]
images = [scan, mask, classical.clamp(0, 1), restored]
row = [Picture(title, image.expand(1, 3, -1, -1)) for title, image in zip(titles, images, strict=True)]
deqir.write_image(args.out / "real-old-photo.png", restored[0])
deqir.write_image(args.out / "real-old-photo-mask.png", mask[0])
deqir.write_image(args.out / "real-old-photo-sheet.png", draw_sheet([row], zoom=1))
