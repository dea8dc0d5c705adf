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

from ddim_core.common.digest import code_digest, digest
from ddim_core.common.plain_files import is_there
from ddim_core.decisions.row import CellRow
from ddim_core.devices.names import CPU, card_kind, is_card
from ddim_core.diffusion.labels import asked_labels
from ddim_core.features.extractor import FeatureExtractor, PixelFeatures, features_of, in_groups
from ddim_core.features.registry import ExtractorChoice, open_extractor
from ddim_core.images.one_by_one import NativeImages, all_grey, in_channels, native_images
from ddim_core.images.sources.arrays import is_array_file
from ddim_core.images.sources.decode import decode
from ddim_core.images.sources.source import ALL
from ddim_core.scores.per_class import PerClass
from ddim_core.scores.set_score import FeatureSet
from ddim_core.statistics.npz import Statistics, holds_images, read_npz
from ddim_core.statistics.reference_files import are_beside_images, is_pickle, statistics_for
from tasks.cells.extractor_memory import extractor_in_memory, record_of
from tasks.cells.lookup import cell_shards, find_cell, looks_like_cell
from tasks.storage import store
from tasks.storage.store import ArtifactRef

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
        beside: Statistics that a file has beside its images, of more than these.
        row: The table's row, where it is a cell.
        files: Where they are read from files, the reading.
    """

    name: str
    found: Statistics | NDArray[Any] | list[Images]
    row: CellRow | None = None
    files: NativeImages | None = None
    beside: Statistics | None = None

    @property
    def has_images(self) -> bool:
        return isinstance(self.found, list)

    @property
    def has_classes(self) -> bool:
        """Whether its images are told apart by class; of single ones that have none is told when
        they are read."""
        if self.row is not None:
            return PerClass.from_json(self.row.per_class) is not None
        return self.files is not None and bool(self.files.source.class_names)

    @property
    def by_moments(self) -> Place:
        """The same known by its statistics alone, where it has any: no network looks at it then."""
        return Place(self.name, self.beside) if self.beside else self


def open_place(
    name: str,
    split: str = ALL,
    resolution: int | None = None,
    read: Callable[[bytes], Image.Image] = decode,
    extractor: str = "",
) -> Place:
    """Finds out what a name stands for: an .npz or .pkl, a cell's digest, or a set of images.

    Args:
        name: Of the place.
        split, resolution, read: Of a set of images, see `NativeImages`.
        extractor: Whose statistics of a file are meant, see `statistics_for`.

    Raises:
        ValueError: If it is none of these.
    """
    path, beside = Path(name), None
    if is_array_file(path) or is_pickle(path):
        if not is_there(path):
            raise ValueError(f"there is no file {name!r}")
        beside = statistics_for(path, extractor)
        if is_pickle(path) or not holds_images(path):
            return Place(name, beside or read_npz(path))
    if not path.exists() and looks_like_cell(name):
        row = find_cell(name)
        return Place(name, [list(shard) for shard in cell_shards(row)], row)
    files = native_images(name, split, resolution, read)
    coming = iter(files)
    first = next(coming)  # what cannot be read is said before any network is opened
    return Place(name, [chain([first], coming)], files=files, beside=beside)


def opener(choice: ExtractorChoice | None, places: list[Place], device: str = CPU) -> Opener:
    """Returns what extracts features on a device: the choice, or else what a cell, or a file of
    statistics of ours, was made with, or else the Inception of FID.

    The function raises ValueError where the extractor cannot be had.
    """
    stored = _stored_extractor(choice, places)
    if stored and record_of(stored).extractor != "pixels":
        return lambda shape: extractor_in_memory(stored, shape, device)
    if choice is None and not stored:
        records = [p.found.record for p in places if isinstance(p.found, Statistics)]
        known = next((record for record in records if record), None)
        choice = (
            ExtractorChoice(known.extractor, resize=known.resize)
            if known
            else ExtractorChoice(DEFAULT_FEATURES)
        )
    if stored or choice is None or choice.name == "pixels":
        return _pixel_opener(places)
    return _opener(choice, device)


def _stored_extractor(choice: ExtractorChoice | None, places: list[Place]) -> ArtifactRef | None:
    """What a cell's features were taken by, or statistics of ours, where that is what is wanted."""
    for row in [place.row for place in places if place.row]:
        if choice is None or _is_of(choice, row):
            return ArtifactRef(artifact=row.extractor_digest, kind="extractor")
    records = [p.found.record for p in places if isinstance(p.found, Statistics)]
    known = next((record for record in records if record), None)
    stored = ArtifactRef(artifact=known.digest, kind="extractor") if known else None
    return stored if choice is None and stored and store.intact(stored) else None


def _is_of(choice: ExtractorChoice, row: CellRow) -> bool:
    """Tells whether a cell's own extractor is the one asked for."""
    if choice.name != row.extractor or choice.weights:
        return False
    return choice.name == "classifier" or choice.resize == row.resize


def _pixel_opener(places: list[Place]) -> Opener:
    @cache
    def open_for(shape: tuple[int, ...]) -> FeatureExtractor:
        height, width = shape[:2]
        return PixelFeatures(height, width, _channels_of(places, height, width))

    return open_for


def _channels_of(places: list[Place], height: int, width: int) -> int:
    """The channels that pixels are compared in: those of a cell's images or of given numbers; else
    one, if no image of any set has a colour, or three."""
    cells = [
        np.shape(next(iter(p.found[0])))[2]
        for p in places
        if p.row is not None and isinstance(p.found, list)
    ]
    if cells:
        return int(max(cells))
    given = [p.found for p in places]
    sizes = [f.mu.size if isinstance(f, Statistics) else np.shape(f)[1] for f in given
             if not isinstance(f, list)]  # fmt: skip
    if height * width * 3 in sizes:
        return 3
    files = (place.files for place in places if place.files is not None)
    return 1 if all(all_grey(images) for images in files) else 3


def _opener(choice: ExtractorChoice, device: str) -> Opener:
    @cache
    def opened(choice: ExtractorChoice) -> FeatureExtractor:
        extractor = open_extractor(choice)
        if is_card(device):
            extractor.to_card(device)
        return extractor

    def open_for(shape: tuple[int, ...]) -> FeatureExtractor:
        if choice.name == "classifier":
            raise ValueError(
                "classifier features belong to a grid: score one of its cells (`ddim table "
                "--json` has their digests)"
            )
        return opened(choice)

    return open_for


def feature_set(place: Place, open_for: Opener, device: str = CPU) -> FeatureSet:
    """Takes a place's features; what that kind of device took before comes from the store.

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
                rows.append(_features(extractor, group, name, card_kind(device)))
                content.update(name.encode())
                sizes.update(image.shape[:2] for image in group)
                bar.update(len(group))
            shards.append(np.concatenate(rows))
    assert extractor is not None
    _require_images(place.name, sum(map(len, shards)), shards[0].shape[1])
    size = "{}x{}".format(*sizes.pop()) if len(sizes) == 1 else "mixed"
    beside = place.beside if are_beside_images(extractor.name) else None
    return FeatureSet(
        place.name, shards, beside, extractor.record, size, content.hexdigest(), extractor,
        _classes(place, sum(map(len, shards))), place.row is not None,
    )  # fmt: skip


def _classes(place: Place, n_images: int) -> list[str] | None:
    """The class of each image by name: as its file says, or as was asked for in a cell."""
    told = PerClass.from_json(place.row.per_class) if place.row is not None else None
    if told is not None:
        names = [one.name for one in told.classes]
        return [names[i] for i in asked_labels(range(n_images), len(names)).tolist()]
    found = place.files.classes if place.files is not None else []
    known = [name for name in found if name is not None]
    return known if known and len(known) == n_images else None


def _require_images(name: str, n_images: int, n_features: int) -> None:
    if n_images < LEAST_IMAGES:
        raise ValueError(
            f"{name} holds {n_images} image; a distance needs at least {LEAST_IMAGES}, and FID_inf "
            f"more than its {n_features} features"
        )


def _features(
    extractor: FeatureExtractor, images: list[NDArray[np.uint8]], content: str, kind: str | None
) -> NDArray[np.float32]:
    """Features of a group of images, from the store where they have been taken before."""
    if extractor.channels is not None:
        images = [in_channels(image, extractor.channels) for image in images]
    if extractor.name == "pixels":
        return features_of(extractor, images)
    told = ["features", code_digest("tasks.cells.extractor_memory"), extractor.digest, content]
    name = digest(*told, *([kind] if kind else []))
    known = store.bound(name, ArtifactRef)
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
