"""Networks are called with 16 images where they were with 128: shards in tests have ten.

No test of a flow depends on the number; whoever draws for the same table has to have the same.
"""

from __future__ import annotations

from ddim_core.networks import denoisers

SMALL = 16


def dask_setup(worker: object) -> None:
    """What dask calls in each worker that is started with `preload` of this module."""
    denoisers.MAX_BATCH = SMALL
