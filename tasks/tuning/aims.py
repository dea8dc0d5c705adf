"""The aim of a search, of stored ends and real images, and what it measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ddim_core.samplers.name import SamplerName
from ddim_core.scores.distances.frechet import Reference
from ddim_core.statistics.moments import FeatureMoments
from ddim_core.tuning.aims import Aim, ToLongRun, ToReference
from ddim_core.tuning.evaluations import Distances, Measure
from ddim_core.tuning.positions import Visits
from ddim_core.tuning.runs import Runs
from tasks.cells.reference import STATISTICS, known_features
from tasks.sampling.guidance import Inside
from tasks.storage import store
from tasks.storage.store import ArtifactRef


def aim_of(
    ends: NDArray[np.float32], chunks: Sequence[range], reference: ArtifactRef | None
) -> Aim:
    """Returns what runs are brought nearer to.

    Args:
        ends: Of the long run, [n, ...].
        chunks: Places of the images that the network is asked about at once.
        reference: Features, or statistics, of real images; None takes the ends.
    """
    if reference is None:
        return ToLongRun(ends, chunks)
    if reference.kind == STATISTICS:
        moments = known_features(reference).statistics.moments()
    else:
        moments = FeatureMoments.from_features(store.get_arrays(reference)["features"])
    return ToReference(Reference.of(moments), chunks)


def measure(by: Aim, runs: Runs, visits: Visits, inside: Inside | None) -> Measure:
    """Returns what measures a candidate by an aim; NaN, which is behind any other, where guidance
    has an interval and none of its calls lies inside: that is no cell of a grid.

    Args:
        by: The aim.
        runs: Of the images to tune on.
        visits: Tells where a sampler asks the network.
        inside: Of `guided_where`.
    """

    def measured(sampler: SamplerName, steps: int, part: int) -> Distances:
        if inside and not any(map(inside, visits(sampler, steps).timesteps)):
            return np.full(by.sizes[part], np.nan)
        return by.of(runs, sampler, steps, part)

    return measured
