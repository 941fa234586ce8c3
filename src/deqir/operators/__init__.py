"""Linear forward operators: how an image was damaged."""

from deqir.operators.base import DecomposableOperator, LinearOperator
from deqir.operators.colorization import Colorization
from deqir.operators.composition import compose
from deqir.operators.compressed_sensing import CompressedSensing
from deqir.operators.conversion import as_operator
from deqir.operators.deblurring import Deblurring
from deqir.operators.denoising import Denoising
from deqir.operators.function import FunctionOperator, from_function
from deqir.operators.inpainting import Inpainting
from deqir.operators.iterative import IterativeOperator
from deqir.operators.kernels import (
    anisotropic_kernel,
    gaussian_kernel,
    kernel_from_image,
    motion_kernel,
    uniform_kernel,
)
from deqir.operators.least_squares import LeastSquares
from deqir.operators.masks import box_mask, random_mask, text_mask
from deqir.operators.matrix import MatrixOperator
from deqir.operators.parametric import ParametricBlur, SoftMask
from deqir.operators.superresolution import SuperResolution
from deqir.operators.unobserved import Unobserved
from deqir.operators.verification import OperatorReport, check_operator

__all__ = [
    "Colorization",
    "CompressedSensing",
    "Deblurring",
    "DecomposableOperator",
    "Denoising",
    "FunctionOperator",
    "Inpainting",
    "IterativeOperator",
    "LeastSquares",
    "LinearOperator",
    "MatrixOperator",
    "OperatorReport",
    "ParametricBlur",
    "SoftMask",
    "SuperResolution",
    "Unobserved",
    "anisotropic_kernel",
    "as_operator",
    "box_mask",
    "check_operator",
    "compose",
    "from_function",
    "gaussian_kernel",
    "kernel_from_image",
    "motion_kernel",
    "random_mask",
    "text_mask",
    "uniform_kernel",
]
