"""What is lost when an image is encoded to noise and decoded again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.common.last import last_of
from ddim_core.diffusion.sampling import Denoiser, encode, sample
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import SamplerSpec


@dataclass(frozen=True)
class MeanError:
    """A mean over images with its 95 % interval (Student's t); None from fewer than 2 images."""

    mean: float
    low: float | None
    high: float | None


def reconstruct(model: Denoiser, schedule: NoiseSchedule, spec: SamplerSpec, x_0: Tensor) -> Tensor:
    """Encodes images to x_T and decodes them again, with the same steps.

    Args:
        model, schedule: As in `sampling.sample`.
        spec: The sampler setting, eta 0.
        x_0: Clean images [n, channel, height, width] in [-1, 1].

    Returns:
        The images that come back, shaped like x_0, as they are: not clamped, not rounded.

    Raises:
        ValueError: As `sampling.encode`.
    """
    encoded = last_of(encode(model, schedule, spec, x_0))
    decoded = last_of(sample(model, schedule, spec, encoded.x))
    return decoded.x


def squared_errors(x: Tensor, x_0: Tensor) -> NDArray[np.float64]:
    """Returns each image's mean squared error per dimension, on pixels scaled to [0, 1].

        mean over pixels of ((x - x_0) / 2)^2

    Source: the measure of Song et al. 2021 (arXiv:2010.02502), table 2. In float64; no pixel is
    rounded to a byte, which would alone add up to (1 / 510)^2 = 3.8e-6.

    Args:
        x, x_0: Images [n, ...], pixels in [-1, 1].

    Returns:
        float64 [n].

    Raises:
        ValueError: If shapes differ or an error is not finite.
    """
    if x.shape != x_0.shape:
        raise ValueError(f"shapes are {tuple(x.shape)} and {tuple(x_0.shape)}; they must be equal")
    halved = (x.double() - x_0.double()) / 2.0
    errors = halved.square().flatten(1).mean(dim=1)
    if not bool(torch.isfinite(errors).all()):
        n_bad = int((~torch.isfinite(errors)).sum())
        raise ValueError(f"the error of {n_bad} of {len(errors)} images is NaN or infinite")
    result: NDArray[np.float64] = errors.cpu().numpy()
    return result


def mean_error(errors: NDArray[np.float64]) -> MeanError:
    """Averages errors [n] over images; the interval's lower end stays at 0 or above.

    Raises:
        ValueError: If there are no images.
    """
    from scipy import stats

    n = len(errors)
    if n == 0:
        raise ValueError("there are 0 errors; a mean needs at least 1")
    mean = float(errors.mean())
    if n < 2:
        return MeanError(mean, None, None)
    half = float(stats.t.ppf(0.975, n - 1)) * float(errors.std(ddof=1)) / math.sqrt(n)
    return MeanError(mean, max(mean - half, 0.0), mean + half)
