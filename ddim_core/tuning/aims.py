"""What a search brings short runs nearer to: the ends of the long run, or the real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ddim_core.samplers.name import SamplerName
from ddim_core.scores.distances.frechet import Reference, frechet_values
from ddim_core.tuning.evaluations import Distances
from ddim_core.tuning.runs import Runs, distances


class Aim(Protocol):
    """A figure of runs, lower is better, as the mean of one value an image."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Images of each part by which a candidate is looked at."""
        ...

    def of(self, runs: Runs, sampler: SamplerName, steps: int, part: int) -> Distances:
        """Returns the values of the images of a part, float64 [n]."""
        ...


@dataclass(frozen=True, eq=False)
class ToLongRun:
    """How far each image ends from where the long run ends: root mean square per coordinate.

    Attributes:
        ends: Of the long run, [n, ...].
        chunks: Places of the images that the network is asked about at once.
    """

    ends: NDArray[np.float32]
    chunks: Sequence[range]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(len, self.chunks))

    def of(self, runs: Runs, sampler: SamplerName, steps: int, part: int) -> Distances:
        there = self.ends[self.chunks[part].start : self.chunks[part].stop]
        return distances(runs.ends(sampler, steps, part), torch.from_numpy(there))


@dataclass(frozen=True, eq=False)
class ToReference:
    """The Frechet distance of all images to the real ones, in features: `frechet_values`.

    Attributes:
        reference: The real images.
        chunks: Places of the images that the network is asked about at once.
    """

    reference: Reference
    chunks: Sequence[range]

    @property
    def sizes(self) -> tuple[int, ...]:
        return (sum(map(len, self.chunks)),)

    def of(self, runs: Runs, sampler: SamplerName, steps: int, part: int) -> Distances:
        ends = [runs.ends(sampler, steps, i).numpy() for i in range(len(self.chunks))]
        return self.values(np.concatenate(ends))

    def values(self, features: NDArray[np.float32]) -> Distances:
        """Returns the values of images by their features [n, d]; NaN if one is not finite."""
        if not np.isfinite(features).all():
            return np.full(len(features), np.nan)
        return frechet_values(features, self.reference)
