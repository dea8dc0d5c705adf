"""The aim of a search, of stored ends and real images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ddim_core.scores.distances.frechet import Reference
from ddim_core.statistics.moments import FeatureMoments
from ddim_core.tuning.aims import Aim, ToLongRun, ToReference
from tasks.cells.reference import STATISTICS, known_features
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
