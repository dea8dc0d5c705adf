"""Networks are called with 16 images where they were with 128, and as they are, without a trace.

Shards in tests have ten images, and to trace a network takes longer than to call it twenty times.
No test of a flow depends on either; whoever draws for the same table has to have the same. That
a trace answers as its network does is held by `tests/core/networks/test_denoisers.py`, and
`tests/flows/servers/test_serve.py` draws with traces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ddim_core.networks import denoisers

SMALL = 16


def untraced(model: Any, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
    """In place of `UNetModel._trace`."""
    return denoisers._AsModule(model.unet).eval()


def dask_setup(worker: object) -> None:
    """What dask calls in each worker that is started with `preload` of this module."""
    denoisers.MAX_BATCH = SMALL
    denoisers.UNetModel._trace = untraced  # type: ignore[method-assign]
