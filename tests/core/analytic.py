"""The exact network of a mixture of isotropic Gaussians: nothing to train, exact in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ddim_core.diffusion.specs import PredictionType


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Keeps tiny tensors on one thread (import it to use it): more only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class Mixture:
    """Data x0 ~ sum_k weights[k] N(means[k], sds[k]^2 I).

    Attributes:
        means: [components, dimension].
        sds, weights: [components].
    """

    means: Tensor
    sds: Tensor
    weights: Tensor

    @classmethod
    def of(cls, means: ArrayLike, sds: ArrayLike, weights: ArrayLike) -> Mixture:
        return cls(*(torch.tensor(np.asarray(v, dtype=np.float64)) for v in (means, sds, weights)))

    def draw(self, n: int, seed: int) -> Tensor:
        """Returns n independent data points, float64 [n, dimension]."""
        generator = torch.Generator().manual_seed(seed)
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=generator)
        return self.means[component] + self.sds[component, None] * noise

    def x0_and_eps(self, x: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
        """Returns E[x0 | x_t = x] and E[eps | x_t = x], float64, shaped like x.

        Given component k, x_t has mean sqrt(alpha_bar) mu_k and variance
        v_k = alpha_bar s_k^2 + 1 - alpha_bar.
        """
        flat = x.reshape(len(x), -1).double()
        signal, noise = alpha_bar**0.5, (1.0 - alpha_bar) ** 0.5
        variance = alpha_bar * self.sds**2 + (1.0 - alpha_bar)
        offset = flat[:, None, :] - signal * self.means  # [batch, components, dimension]
        log_share = (
            self.weights.log()
            - offset.square().sum(2) / (2.0 * variance)
            - 0.5 * flat.shape[1] * variance.log()
        )
        share = log_share.softmax(dim=1)[:, :, None]
        x0 = (share * (self.means + (signal * self.sds**2 / variance)[:, None] * offset)).sum(1)
        eps = (share * (noise / variance)[:, None] * offset).sum(1)
        return x0.reshape(x.shape), eps.reshape(x.shape)


@dataclass(frozen=True, eq=False)
class MixtureModel:
    """The mixture's exact prediction, called like a network: model(x, t), t int64 [batch]."""

    mixture: Mixture
    alpha_bar: NDArray[np.float64]
    prediction_type: PredictionType = "epsilon"

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        assert t.dtype == torch.int64
        assert t.shape == (len(x),)
        alpha_bar = float(self.alpha_bar[int(t[0])])
        x0, eps = self.mixture.x0_and_eps(x, alpha_bar)
        match self.prediction_type:
            case "epsilon":
                prediction = eps
            case "sample":
                prediction = x0
            case "v_prediction":
                prediction = alpha_bar**0.5 * eps - (1.0 - alpha_bar) ** 0.5 * x0
        return prediction.to(x.dtype)
