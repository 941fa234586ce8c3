"""Two colourisations of one grey photo, steered to the palettes of two references, both agreeing with it exactly.

A crop of 48 pixels and six steps, so that it takes seconds. So short a chain chooses loud colours by itself; four
iterations of the initial noise bring the mean colours near the reference, not every object's own.
"""

import torch

import deqir
from deqir.demo import demo_photo
from deqir.initialization import NoiseOptimizer
from deqir.losses import PaletteDistance
from deqir.sheet import Picture, draw_sheet

photo = demo_photo()[..., 68:116, 48:96]  # (1, 3, 48, 48), values in [0, 1]; small, so that it takes seconds
operator = deqir.operators.Colorization()
grey = operator.forward(photo)
restorer = deqir.Restorer(deqir.load_prior(), operator, steps=6, eta=0.0, solver="serial")

references = {"as it was": photo, "red and blue swapped": photo.flip(1)}
row = [Picture("grey", grey), Picture("colourised", restorer.restore(grey).image)]
for name, reference in references.items():
    result = NoiseOptimizer(restorer, [(1.0, PaletteDistance(reference))], iterations=4).run(grey)
    first, best = float(result.losses[0, 0]), float(result.losses.min())
    error = float((operator.forward(result.image) - grey).abs().max())
    print(f"{name}: distance to the palette {first:.4f} -> {best:.4f}, |A x - y| <= {error:.0e}")
    row += [Picture(name, reference), Picture("steered there", result.image)]

assert all(bool(torch.isfinite(picture.image).all()) for picture in row)
deqir.write_image("steered.png", draw_sheet([row], zoom=3))
