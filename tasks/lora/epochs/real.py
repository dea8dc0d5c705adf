"""A data set in, its images at the pictures' size in the store out."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import task

from ddim_core.images.load import load_images
from ddim_core.lora.scoring.scorecard import seen
from tasks.images.prepare import content_of
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class RealImages(ArtifactRef):
    """Stored `images`, and how many they are."""

    n_images: int


@cached_task
def real_images(content: str, split: str, resolution: int, location: str) -> RealImages:
    """Loads and resizes images as a grid does, in colour; cached on the content, wherever it lies.

    Raises:
        ValueError: If they cannot be read, or changed meanwhile.
    """
    images = load_images(location, split, resolution, 3).images
    if content_of(location) != content:
        raise ValueError(f"the files of {location!r} changed while they were read; run it again")
    stored = store.put_arrays({"images": images}, "real images")
    return RealImages(**vars(stored), n_images=len(images))


@task(name="require-unseen")
def require_unseen(held_out: RealImages, training: RealImages, name: str) -> int:
    """Returns how many held-out images are training images, by which no copy is told.

    Raises:
        ValueError: If all are.
    """
    n = int(seen(*(store.get_arrays(ref)["images"] for ref in (held_out, training))).sum())
    if n == held_out.n_images:
        raise ValueError(
            f"all {n} held-out images of {name} are among the training images; give others, or none"
        )
    return n
