"""Initial weights that follow from a seed, also where threads build networks at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

LOADING = RLock()
"""The one lock of all packages, held while a network is built or opened, weights drawn included.

Who holds it may build another network meanwhile, as a part of the first.
"""


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Inside, new layers draw their weights from a stream of this seed.

    Torch's layers know only the global stream, which all threads share: one network is built at a
    time, and the stream is left as it was.
    """
    with LOADING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
