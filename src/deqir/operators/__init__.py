"""Linear forward operators: how an image was damaged."""

from deqir.operators.base import DecomposableOperator, LinearOperator
from deqir.operators.colorization import Colorization
from deqir.operators.compressed_sensing import CompressedSensing
from deqir.operators.deblurring import Deblurring
from deqir.operators.denoising import Denoising
from deqir.operators.inpainting import Inpainting
from deqir.operators.kernels import (
    anisotropic_kernel,
    gaussian_kernel,
    kernel_from_image,
    motion_kernel,
    uniform_kernel,
)
from deqir.operators.masks import box_mask, random_mask, text_mask
from deqir.operators.parametric import ParametricBlur, SoftMask
from deqir.operators.superresolution import SuperResolution

__all__ = [
    "Colorization",
    "CompressedSensing",
    "Deblurring",
    "DecomposableOperator",
    "Denoising",
    "Inpainting",
    "LinearOperator",
    "ParametricBlur",
    "SoftMask",
    "SuperResolution",
    "anisotropic_kernel",
    "box_mask",
    "gaussian_kernel",
    "kernel_from_image",
    "motion_kernel",
    "random_mask",
    "text_mask",
    "uniform_kernel",
]
