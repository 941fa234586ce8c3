"""Restore a photo in Python: degrade the bundled one, restore it, compare."""

import deqir
from deqir.demo import demo_photo

truth = demo_photo()  # (1, 3, 200, 144), values in [0, 1]
operator = deqir.operators.SuperResolution(scale=4)
y = operator.forward(truth)

result = deqir.Restorer(deqir.load_prior(), operator, steps=10).restore(y, seed=0)

print(f"{result.stats.solver}: {result.stats.sweeps[0]} sweeps, {result.stats.nfe[0]} evaluations")
print(f"PSNR {float(deqir.psnr(result.image.clamp(0, 1), truth)[0]):.2f} dB")
print(f"largest deviation from the observation: {float((operator.forward(result.image) - y).abs().max()):.1e}")
deqir.write_image("restored.png", result.image[0])
