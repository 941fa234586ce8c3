"""deqir operators as deepinv physics."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from deepinv.physics import DecomposablePhysics, GaussianNoise, LinearPhysics, NoiseModel, ZeroNoise
from torch import Tensor

from deqir.operators import DecomposableOperator, LinearOperator
from deqir.operators.base import Shape


def as_physics(
    operator: LinearOperator,
    shape: Shape,
    noise: float | NoiseModel = 0.0,
    device: str | torch.device = "cpu",
) -> LinearPhysics:
    """``operator`` as a deepinv physics for images of ``shape`` (C, H, W) on ``device``.

    ``noise`` is the standard deviation of Gaussian noise on the observation, or a deepinv noise model. A decomposable
    operator becomes a ``DecomposablePhysics`` with its singular values as ``mask``, which DDRM needs. The parameters
    are the operator's: updating ``mask`` has no effect on ``A_dagger``. ``physics_operator`` gives the operator back.
    Raises ShapeError where the shape does not fit.
    """
    operator = operator.at(shape)
    if not isinstance(noise, NoiseModel):
        noise = GaussianNoise(float(noise)) if noise else ZeroNoise()
    if isinstance(operator, DecomposableOperator):
        return _DecomposablePhysics(operator, shape, noise).to(device)
    return _LinearPhysics(operator, shape, noise).to(device)


class _LinearPhysics(LinearPhysics):  # type: ignore[misc]
    """A deqir operator by its forward, adjoint and pseudo-inverse."""

    def __init__(self, operator: LinearOperator, shape: Shape, noise: NoiseModel) -> None:
        super().__init__(img_size=shape, noise_model=noise)
        self.deqir_operator = operator

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        return self.deqir_operator.forward(x)

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        return self.deqir_operator.adjoint(y)

    def A_dagger(self, y: Tensor, **kwargs: Any) -> Tensor:
        return self.deqir_operator.pinv(y)


class _DecomposablePhysics(DecomposablePhysics):  # type: ignore[misc]
    """A deqir operator by its singular value decomposition, with V completed to all images.

    deepinv's DDRM and ``prox_l2`` take ``V V^T`` for the identity. Where the operator's own decomposition leaves out
    its null space, coefficients are rows (B, K + C * H * W): its own, then the part of the image that V misses.
    """

    def __init__(self, operator: DecomposableOperator, shape: Shape, noise: NoiseModel) -> None:
        own = operator.V_adjoint(torch.zeros(1, *shape))
        values = operator.singular_values(own).expand(own.shape)
        thin = own.numel() < prod(shape)
        if thin:
            mask = torch.cat([values.flatten(1), values.new_zeros(1, prod(shape))], dim=1)
        else:
            mask = torch.stack([values, values], -1) if own.is_complex() else values.clone()
        super().__init__(mask=mask, img_size=shape, noise_model=noise)
        self.deqir_operator = operator
        self._own_shape, self._thin, self._complex = own.shape[1:], thin, own.is_complex()

    def U(self, x: Tensor) -> Tensor:
        return self.deqir_operator.U(self._own(x))

    def U_adjoint(self, x: Tensor, **kwargs: Any) -> Tensor:
        own = self.deqir_operator.U_adjoint(x)
        return self._completed(own, own.new_zeros(len(x), prod(self.img_size)))

    def V(self, x: Tensor, **kwargs: Any) -> Tensor:
        image = self.deqir_operator.V(self._own(x))
        return image + self._missed(x[:, -prod(self.img_size) :].reshape(image.shape)) if self._thin else image

    def V_adjoint(self, x: Tensor) -> Tensor:
        own = self.deqir_operator.V_adjoint(x)
        return self._completed(own, self._missed(x).flatten(1)) if self._thin else self._completed(own, x)

    def A_dagger(self, y: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        return self.deqir_operator.pinv(y) if mask is None else super().A_dagger(y, mask=mask, **kwargs)

    def _missed(self, x: Tensor) -> Tensor:
        """The part of an image that V does not reach."""
        return x - self.deqir_operator.V(self.deqir_operator.V_adjoint(x))

    def _own(self, coefficients: Tensor) -> Tensor:
        if self._thin:
            return coefficients[:, : prod(self._own_shape)].reshape(-1, *self._own_shape)
        return torch.view_as_complex(coefficients.contiguous()) if self._complex else coefficients

    def _completed(self, own: Tensor, missed: Tensor) -> Tensor:
        if self._thin:
            return torch.cat([own.flatten(1), missed], dim=1)
        return torch.view_as_real(own) if self._complex else own
