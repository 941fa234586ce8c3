"""An old photo with a known truth: age the bundled photo, restore it, and compare with classical methods.

Writes old-photo.png (the scan), old-photo-mask.png (the damage that was detected) and old-photo-sheet.png. The photo is
the bundled one, whose licence is in src/deqir/data/README.md; its ageing is drawn from a seed, so the truth is known.
"""

import argparse
from pathlib import Path

import deqir
from deqir.ageing import Ageing
from deqir.appraisal import appraise
from deqir.demo import demo_photo
from deqir.old_photo import TRAVEL, classical_old_photo
from deqir.sheet import Picture, draw_sheet
from deqir.tasks import Task

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--out", type=Path, default=Path())
args = parser.parse_args()

truth = demo_photo()  # (1, 3, 200, 144), values in [0, 1]
shape = (3, 200, 144)
aged = Ageing(seed=1).apply(truth)
found = appraise(Task.from_settings({"name": "old-photo"}), aged.image, noise=None, quantization=None)
print(found.findings["assumed"])


def picture(title, image, note=""):
    """A picture with its figures against the truth."""
    image = image.clamp(0, 1)
    figures = f"{float(deqir.psnr(image, truth)[0]):.2f} dB, SSIM {float(deqir.ssim(image, truth)[0]):.3f}"
    print(f"{title}: {figures}")
    return Picture(title, image, f"{figures}\n{note}")


def restored(mask, **travel):
    """What deqir makes of the scan."""
    operator = found.task.operator(shape, mask)
    prior = deqir.load_prior()
    restorer = deqir.Restorer(prior, operator, args.steps, noise=found.noise, solver="serial", **travel)
    return restorer.restore(operator.forward(found.y), seed=0).image


row = [
    picture("old photo", aged.image, "scratches, dust, fading, grain"),
    Picture("detected damage", found.mask.expand(1, 3, -1, -1), f"{found.findings['mask_share']:.1%} of the photo"),
    picture("classical", classical_old_photo(found.y, found.mask, 1, False, found.noise), "Telea, non-local means"),
    picture("restored", restored(found.mask), "deqir"),
    picture("with time travel", restored(found.mask, **TRAVEL), "deqir, twice the network calls"),
    Picture("truth", truth),
]
args.out.mkdir(parents=True, exist_ok=True)
deqir.write_image(args.out / "old-photo.png", aged.image[0])
deqir.write_image(args.out / "old-photo-mask.png", found.mask[0])
deqir.write_image(args.out / "old-photo-sheet.png", draw_sheet([row], zoom=1))
