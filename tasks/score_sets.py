"""What `ddim score` compares: places in, feature sets out, features kept in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ddim_core.decode import decode
from ddim_core.digest import code_digest, digest
from ddim_core.extractors import ExtractorChoice, open_extractor
from ddim_core.features import FeatureExtractor, PixelFeatures, features_of, in_groups
from ddim_core.interop import Statistics, read_npz
from ddim_core.native import NativeImages, in_channels, is_grey, native_images
from ddim_core.pair_score import FeatureSet
from ddim_core.sources import ALL
from tasks import store
from tasks.cells import cell_shards, find_cell, looks_like_cell
from tasks.feature_models import extractor_in_memory
from tasks.store import ArtifactRef

Images = Iterable[NDArray[np.uint8]]
# What turns images of a first image's shape [h, w, c] into features.
Opener = Callable[[tuple[int, ...]], FeatureExtractor]
DEFAULT_FEATURES = "inception-v3"
LEAST_IMAGES = 2  # one image has no covariance


@dataclass(frozen=True, eq=False)
class Place:
    """One side of a comparison before any features.

    Attributes:
        name: What the user called it.
        found: Statistics, features [n, d], or shards of images that come one by one.
        row: The table's row, where it is a cell.
        grey: Whether the first image has no colour.
        files: Where they are read from files, the reading.
    """

    name: str
    found: Statistics | NDArray[Any] | list[Images]
    row: dict[str, Any] | None = None
    grey: bool = False
    files: NativeImages | None = None

    @property
    def has_images(self) -> bool:
        return isinstance(self.found, list)


def open_place(
    name: str,
    split: str = ALL,
    resolution: int | None = None,
    read: Callable[[bytes], Image.Image] = decode,
) -> Place:
    """Finds out what a name stands for: an .npz, a cell's digest, or a set of images.

    Args:
        name: Of the place.
        split, resolution, read: Of a set of images, see `NativeImages`.

    Raises:
        ValueError: If it is none of these.
    """
    path = Path(name)
    if path.suffix == ".npz":
        if not path.is_file():
            raise ValueError(f"there is no file {name!r}")
        found = read_npz(path)
        if isinstance(found, np.ndarray) and found.ndim == 4:  # images, as guided-diffusion's
            return Place(name, [list(found)], grey=is_grey(found[0]))
        return Place(name, found)
    if not path.exists() and looks_like_cell(name):
        row = find_cell(name)
        shards: list[Images] = [list(shard) for shard in cell_shards(row)]
        return Place(name, shards, row, is_grey(next(iter(shards[0]))))
    files = native_images(name, split, resolution, read)
    coming = iter(files)
    first = next(coming)  # what cannot be read is said before any network is opened
    return Place(name, [chain([first], coming)], grey=is_grey(first), files=files)


def opener(choice: ExtractorChoice | None, places: list[Place]) -> Opener:
    """Returns what extracts features: the choice, or else what a cell, or a file of statistics
    of ours, was made with, or else the Inception of FID.

    The function raises ValueError where the extractor cannot be had.
    """
    rows = [place.row for place in places if place.row]
    for row in rows:
        if choice is None or _is_of(choice, row):
            ref = ArtifactRef(artifact=row["extractor_digest"], kind="extractor")
            return lambda shape: extractor_in_memory(ref, shape)
    if choice is None:
        records = [p.found.record for p in places if isinstance(p.found, Statistics)]
        known = next((record for record in records if record), None)
        stored = ArtifactRef(artifact=known.digest, kind="extractor") if known else None
        if stored and store.intact(stored):
            return lambda shape: extractor_in_memory(stored, shape)
        choice = (
            ExtractorChoice(known.extractor, resize=known.resize)
            if known
            else ExtractorChoice(DEFAULT_FEATURES)
        )
    return _opener(choice, all(place.grey for place in places if place.has_images))


def _is_of(choice: ExtractorChoice, row: dict[str, Any]) -> bool:
    """Tells whether a cell's own extractor is the one asked for."""
    if choice.name != row["extractor"] or choice.weights:
        return False
    return choice.name == "classifier" or choice.resize == row["resize"]


def _opener(choice: ExtractorChoice, grey: bool) -> Opener:
    opened = cache(open_extractor)

    def open_for(shape: tuple[int, ...]) -> FeatureExtractor:
        if choice.name == "classifier":
            raise ValueError(
                "classifier features belong to a grid: score one of its cells (`ddim table "
                "--json` has their digests)"
            )
        if choice.name == "pixels":
            return PixelFeatures(shape[0], shape[1], 1 if grey else 3)
        return opened(choice)

    return open_for


def feature_set(place: Place, open_for: Opener) -> FeatureSet:
    """Takes a place's features; what was taken before comes from the store.

    Raises:
        ValueError: If it holds a single image, which has no covariance.
    """
    if isinstance(place.found, Statistics):
        return FeatureSet(place.name, given=place.found, record=place.found.record)
    if not isinstance(place.found, list):
        _require_images(place.name, *place.found.shape)
        return FeatureSet(place.name, [place.found])
    extractor: FeatureExtractor | None = None
    content, shards = hashlib.sha256(), []
    sizes: set[tuple[int, ...]] = set()
    with tqdm(desc=place.name, unit="image", disable=None) as bar:
        for images in place.found:
            rows = []
            for group in in_groups(images):
                extractor = extractor or open_for(group[0].shape)
                name = _content(group)
                rows.append(_features(extractor, group, name))
                content.update(name.encode())
                sizes.update(image.shape[:2] for image in group)
                bar.update(len(group))
            shards.append(np.concatenate(rows))
    assert extractor is not None
    _require_images(place.name, sum(map(len, shards)), shards[0].shape[1])
    size = "{}x{}".format(*sizes.pop()) if len(sizes) == 1 else "mixed"
    return FeatureSet(
        place.name, shards, None, extractor.record, size, content.hexdigest(), extractor
    )


def _require_images(name: str, n_images: int, n_features: int) -> None:
    if n_images < LEAST_IMAGES:
        raise ValueError(
            f"{name} holds {n_images} image; a distance needs at least {LEAST_IMAGES}, and FID_inf "
            f"more than its {n_features} features"
        )


def _features(
    extractor: FeatureExtractor, images: list[NDArray[np.uint8]], content: str
) -> NDArray[np.float32]:
    """Features of a group of images, from the store where they have been taken before."""
    if extractor.channels is not None:
        images = [in_channels(image, extractor.channels) for image in images]
    if extractor.name == "pixels":
        return features_of(extractor, images)
    name = digest("features", code_digest("tasks.feature_models"), extractor.digest, content)
    known = store.bound(name)
    if "features" in known:
        return store.get_arrays(known["features"])["features"]
    features = features_of(extractor, images)
    store.bind(f"{name}/features", store.put_arrays({"features": features}, "features"))
    return features


def _content(images: list[NDArray[np.uint8]]) -> str:
    """The sha256 of images' sizes and pixels."""
    found = hashlib.sha256()
    for image in images:
        found.update(repr(image.shape).encode())
        found.update(np.ascontiguousarray(image).data)
    return found.hexdigest()
