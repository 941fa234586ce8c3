"""A hole filled twice: as the prior likes, and like a reference, the observed pixels staying as they are.

A crop of 48 pixels and six steps, so that it takes seconds. So short a chain fills the hole with a loud colour by
itself; six iterations of the initial noise bring the brightness and colour of the reference, not its details.
"""

import torch

import deqir
from deqir.demo import demo_photo
from deqir.initialization import NoiseOptimizer
from deqir.losses import Distance
from deqir.sheet import Picture, draw_sheet

photo = demo_photo()[..., 68:116, 48:96]  # (1, 3, 48, 48), values in [0, 1]; small, so that it takes seconds
mask = deqir.operators.box_mask(48, 48)  # 0 in the hole
operator = deqir.operators.Inpainting(mask)
y = operator.forward(photo)
restorer = deqir.Restorer(deqir.load_prior(), operator, steps=6, eta=0.0, solver="serial")

reference = photo.flip(-1)  # the photo mirrored: something else that fits into the hole
like = Distance(reference, region=1 - mask.reshape(48, 48).float())
result = NoiseOptimizer(restorer, [(1.0, like)], iterations=6).run(y)

error = float((operator.forward(result.image) - y).abs().max())
before, after = float(result.losses[0, 0]), float(result.losses.min())
print(f"distance in the hole: {before:.4f} -> {after:.4f}, |A x - y| <= {error:.0e}")
row = [Picture("observation", y), Picture("as the prior likes", restorer.restore(y).image)]
row += [Picture("reference", reference), Picture("like the reference", result.image)]
assert all(bool(torch.isfinite(picture.image).all()) for picture in row)
deqir.write_image("filled.png", draw_sheet([row], zoom=3))
