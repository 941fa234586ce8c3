"""An old photo with a known truth: age the bundled photo, restore it, and compare with classical methods.

Writes old-photo.png (the scan), old-photo-mask.png (the damage that was detected) and old-photo-sheet.png. The photo is
the bundled one, whose licence is in src/deqir/data/README.md; its ageing is drawn from a seed.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import deqir
from deqir.ageing import Ageing
from deqir.appraisal import appraise
from deqir.demo import demo_photo
from deqir.old_photo import TRAVEL, classical_old_photo
from deqir.sheet import Picture, draw_sheet
from deqir.tasks import Task

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--out", type=Path, default=Path())
args = parser.parse_args()

truth = demo_photo()  # (1, 3, 200, 144), values in [0, 1]
shape = tuple(truth.shape[1:])
aged = Ageing(seed=1).apply(truth)
found = appraise(Task.from_settings({"name": "old-photo"}), aged.image, noise=None, quantization=None)
print(found.findings["assumed"])


def scored(title, image, note=""):
    psnr, ssim = float(deqir.psnr(image.clamp(0, 1), truth)[0]), float(deqir.ssim(image.clamp(0, 1), truth)[0])
    print(f"{title}: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}")
    return Picture(title, image.clamp(0, 1), f"{psnr:.2f} dB, SSIM {ssim:.3f}\n{note}")


def restored(mask, y, **options):
    operator = found.task.operator(shape, mask)
    chosen = {"steps": args.steps, "noise": found.noise, "solver": "serial", **TRAVEL, **options}
    return deqir.Restorer(deqir.load_prior(), operator, **chosen).restore(y, seed=0).image


tones = aged.image if found.findings["fading"] is None else found.y
classical = classical_old_photo(found.y, found.mask, 1, False, found.noise)
true_appraisal = appraise(replace(found.task, mask="none"), aged.image, None, None) if False else found
