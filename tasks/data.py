"""Data set name in, images in the store out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ddim_core.digest import digest, file_digest
from ddim_core.images import IMAGE_SUFFIXES, load_images
from tasks import store
from tasks.caching import cached_task


def content_of(dataset: str) -> str:
    """Returns what identifies a data set's raw content: its name where it comes with a package,
    else a digest over the relative names and the bytes of its files."""
    path = Path(dataset)
    if not path.exists():
        return dataset
    files = [path] if path.is_file() else _image_files(path)
    return digest([[f.relative_to(path).as_posix(), file_digest(f)] for f in files])


def _image_files(folder: Path) -> list[Path]:
    """All images below a folder, through links too, since a split may be one."""
    found = []
    for root, _, names in os.walk(folder, followlinks=True):
        found += [Path(root, name) for name in names]
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES)


@cached_task
def prepare_data(content: str, split: str, resolution: int | None, location: str) -> dict[str, Any]:
    """Loads and resizes one split of a data set; returns a reference to its images and labels.

    Cached on the content, wherever it lies; the artefact's digest is the data set's fingerprint.
    """
    data = load_images(location, split, resolution)
    if content_of(location) != content:
        raise ValueError(f"the files of {location!r} changed while they were read; run it again")
    arrays: dict[str, np.ndarray] = {"images": data.images}
    if data.labels is not None:
        arrays["labels"] = data.labels
    n_images, height, _, channels = data.images.shape
    return {
        **store.put_arrays(arrays, "images"),
        "n": n_images,
        "resolution": height,
        "channels": channels,
        "n_classes": None if data.labels is None else int(data.labels.max()) + 1,
    }
