"""A shard of a cell's images: stored by whatever draws it, and extended instead of drawn again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tasks.storage import store
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class DrawnImages(ArtifactRef):
    """Images uint8 [n, h, w, c], the seconds that they took when they were first drawn, and the
    network calls of each, as they happened; and how many a card drew at once."""

    seconds: float
    nfe: int
    batch: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class Shard(DrawnImages):
    """Images of a cell: n of them, of which the task drew so many on the device."""

    n: int
    drawn: int
    device: str


@dataclass(frozen=True, eq=False)
class Images:
    """Images uint8 [n, h, w, c] as they were drawn, the network calls of each, the seconds that all
    took (waiting for a card left out), and how many a card drew at once."""

    images: NDArray[np.uint8]
    nfe: int
    seconds: float
    batch: int = 0


def extended(
    name: str, start: int, stop: int, device: str, draw: Callable[[range, int], Images]
) -> Shard:
    """Returns images start..stop-1 of a cell, stored.

    Images that another run drew (a shorter or longer shard from the same start) are taken from
    the store, and only the others are drawn.

    Args:
        name: The digest of all that decides the images, but for how many they are.
        start, stop: Their indices.
        device: Where they are drawn, for the record.
        draw: Draws the images of a range of indices; told how many at once a card drew of those
            before them, 0 if there are none.
    """
    n = stop - start
    kept = _longest_beginning(name, n)
    whole, n_kept = kept, len(kept.images)
    if n_kept < n:
        drawn = draw(range(start + n_kept, stop), kept.batch)
        images = np.concatenate([kept.images, drawn.images]) if n_kept else drawn.images
        whole = replace(drawn, images=images, seconds=kept.seconds + drawn.seconds)
    ref = store.put_arrays({"images": whole.images}, "shard")
    made = DrawnImages(ref.artifact, ref.kind, whole.seconds, whole.nfe, batch=whole.batch)
    store.bind(f"{name}/{n}", made)
    return Shard(**vars(made), n=n, drawn=n - n_kept, device=device)


def _longest_beginning(name: str, n_wanted: int) -> Images:
    """Returns as many of a shard's first images as the store has, and what these took to draw."""
    known = {int(n): ref for n, ref in store.bound(name, DrawnImages).items()}
    if not known:
        return Images(np.empty(0, np.uint8), 0, 0.0)
    enough = [n for n in known if n >= n_wanted]
    n_known = min(enough) if enough else max(known)
    ref = known[n_known]
    n_kept = min(n_known, n_wanted)
    images = store.get_arrays(ref)["images"][:n_kept]
    return Images(images, ref.nfe, ref.seconds * n_kept / n_known, ref.batch)
