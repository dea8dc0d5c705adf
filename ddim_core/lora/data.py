"""Captioned images in, photos of a subject in: any data set that the grid reads, in one form.

That form is the folder with `metadata.jsonl` that diffusers' and Hugging Face's loaders read: one
JSON object a line with `file_name` and `text`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path, PurePosixPath

from PIL import Image

from ddim_core.common.digest import digest
from ddim_core.common.printable import printable
from ddim_core.images.load import open_source
from ddim_core.images.sources.archives import ARCHIVES, archive_tree, is_archive
from ddim_core.images.sources.arrays import ARRAYS, is_array_file
from ddim_core.images.sources.captions import METADATA as LISTINGS
from ddim_core.images.sources.captions import SIDECARS
from ddim_core.images.sources.decode import BrokenImageError
from ddim_core.images.sources.decode import decode as decode_image
from ddim_core.images.sources.file_tree import FolderTree, Tree
from ddim_core.images.sources.folder import IMAGE_SUFFIXES, FolderSource, is_image
from ddim_core.images.sources.saved_folder import require_plain_beside
from ddim_core.images.sources.source import ALL, Source, named
from ddim_core.images.sources.table import (
    file_source,
    is_saved_to_disk,
    is_table,
    notes_on_folder,
    tables_below,
)
from ddim_core.lora.trainers.source import READERS, subset_sources
from ddim_core.safe_files.hub import fetched

METADATA = LISTINGS[0]
REPEATS = "repeats"  # in METADATA: how often an image is seen; once where it is not there
SPLIT = "train"  # whose captions are taken where a data set has splits
HUB_FILES = [
    f"*{ending}" for ending in (*LISTINGS, *SIDECARS, *sorted(IMAGE_SUFFIXES), *ARCHIVES, *ARRAYS)
] + ["*.parquet", "README.md"]


@dataclass(frozen=True)
class Captioned:
    """One training image: the name of its file, its encoded bytes, its caption, and how often it is
    seen beside the others."""

    name: str
    data: bytes
    caption: str
    repeats: int = 1


def locate_data(name: str) -> Path:
    """Returns the place of captioned images: a folder, a `.parquet` file, or what a data set of
    the hub was fetched to.

    Raises:
        ValueError: If it is nowhere.
    """
    path = Path(name)
    if path.exists():
        return path
    _require_hub_id(name)
    return fetched(name, HUB_FILES, kind="dataset")


def require_data(name: str) -> None:
    """Makes sure, without asking a hub, that there can be such images: by names alone.

    Raises:
        ValueError: If it is a place here without an image, or neither a place nor a hub id.
    """
    path = Path(name)
    if path.exists():
        photo_sources(path)
    else:
        _require_hub_id(name)


def _require_hub_id(name: str) -> None:
    path = Path(name)
    is_file = is_table(path) or is_archive(path) or is_array_file(path) or path.suffix in READERS
    if is_file or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(
            f"there is no data {name!r}; give a folder with {METADATA}, a .parquet file, kohya's "
            "dataset TOML, ai-toolkit's YAML or a hub id"
        )


def captioned_sources(place: Path) -> list[Source]:
    """Opens captioned images without reading one: any data set of `open_source`. Of a folder or
    archive with metadata in `train` alone, that; of a folder of Parquet files, each file; of
    another trainer's settings or folders, each subset.

    Raises:
        ValueError: If there is no image.
    """
    if (subsets := subset_sources(place)) is not None:
        return list(subsets)
    tree = _tree(place)
    if tree is None:
        return [open_source(str(place.absolute()))]
    images = [file for file in tree.files if is_image(file)]
    listed = {file.parent for file in tree.files if file.name in LISTINGS} if images else set()
    if listed & {PurePosixPath("."), PurePosixPath(SPLIT)}:
        return [FolderSource.of(tree if PurePosixPath(".") in listed else tree.below(SPLIT))]
    tables = tables_below(place) if place.is_dir() else []
    if not tables:
        return [FolderSource.of(tree)]
    try:
        require_plain_beside(place)
    except ValueError as error:
        raise ValueError(f"the data set {printable(place.name)!r} {error}") from error
    opened = [file_source(place / table) for table in tables]
    opened[0] = replace(opened[0], beside=notes_on_folder(place))
    return list(opened)


def photo_sources(place: Path) -> list[Source]:
    """Opens photos of a subject, all that there are; captions beside them are not looked at.

    Raises:
        ValueError: If there is none.
    """
    if (subsets := subset_sources(place)) is not None:
        return [subset.without_captions() for subset in subsets]
    tree = _tree(place)
    if tree is None or not any(is_image(file) for file in tree.files):
        return captioned_sources(place)
    return [FolderSource.of(tree).without_captions()]


def class_sources(place: Path) -> list[Source]:
    """Opens the images of a subject's class that another trainer's settings name; often none."""
    return list(subset_sources(place, of_class=True) or [])


def require_one_subject(place: Path) -> None:
    """Makes sure that folders do not name several subjects.

    Raises:
        ValueError: If they do.
    """
    words = {source.subset.words for source in subset_sources(place) or []} - {""}
    if len(words) > 1:
        raise ValueError(
            f"{place.name} has several subjects: {named(sorted(words))}; one is learnt at a time: "
            "give its folder alone, an instance_prompt for all, or take `ddim lora style`"
        )


def content_of(sources: list[Source]) -> str:
    """Returns a digest of all that the images and captions of sources are read from."""
    return digest([source.content() for source in sources])


def notes_on(sources: list[Source]) -> list[str]:
    """Says what was left out of sources, and how the rest was understood."""
    return [f"{source.name}: {note}" for source in sources for note in source.notes]


def has_captions(place: Path) -> bool:
    """Tells whether images come with captions; by their first, since all have one or none."""
    rows = (row for source in captioned_sources(place) for row in source.rows(ALL))
    return next((row.caption is not None for row in rows), False)


def read_captioned(place: Path, sources: Sequence[Source] | None = None) -> list[Captioned]:
    """Reads captioned images, sorted by file name; see `captioned_sources`, which opens them where
    they are not given.

    Raises:
        ValueError: If there is none, if images and captions do not match, naming those, or if an
            image cannot be read.
    """
    items: list[Captioned] = []
    for source in captioned_sources(place) if sources is None else sources:
        rows = [(row.where, row.name, row.read, row.caption) for row in source.rows(ALL)]
        if bare := [where for where, _, _, caption in rows if caption is None]:
            if lacks := getattr(source, "lacks_captions", ""):
                raise ValueError(f"{lacks}; every image needs a caption")
            beside = getattr(source, "sidecars", {})
            without = [w for w in bare if PurePosixPath(w) not in beside] or bare
            listed = [listing.as_posix() for listing in getattr(source, "listings", ())]
            lacks = "no text in " + named(listed) if listed else "no .txt file beside it"
            raise ValueError(
                f"{source.name} has {'no text' if listed else 'no ' + METADATA}, and "
                f"{named(without)} has {lacks}; every image needs a caption"
            )
        repeats = getattr(source, "repeats", 1)
        items += [_item(where, name, read, text or "", repeats) for where, name, read, text in rows]
    if not items:
        raise ValueError(f"{str(place)!r} holds no captioned image; there must be at least one")
    return _sorted(items)


def read_photos(place: Path, prompt: str) -> list[Captioned]:
    """Reads photos of one subject, sorted by name; the prompt is the caption of each.

    Raises:
        ValueError: If the place is not there or holds no image, or if one cannot be read.
    """
    if not place.exists():
        raise ValueError(f"there is no folder {str(place)!r} of the subject's photos")
    items = [
        _item(row.where, row.name, row.read, prompt, getattr(source, "repeats", 1))
        for source in photo_sources(place)
        for row in source.rows(ALL)
    ]
    return _sorted(items)


def _sorted(items: list[Captioned]) -> list[Captioned]:
    """By name, and how often each is seen without what all have in common."""
    common = gcd(*(item.repeats for item in items))
    return sorted(
        (replace(item, repeats=item.repeats // common) for item in items),
        key=lambda item: item.name,
    )


def write_captioned(items: list[Captioned], folder: Path) -> None:
    """Writes images and their `metadata.jsonl`; the same items give the same bytes."""
    lines = []
    for item in items:
        path = folder / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item.data)
        row: dict[str, object] = {"file_name": item.name, "text": item.caption}
        if item.repeats > 1:
            row[REPEATS] = item.repeats
        lines.append(json.dumps(row) + "\n")
    (folder / METADATA).write_text("".join(lines))


def _tree(place: Path) -> Tree | None:
    if place.is_dir():
        return None if is_saved_to_disk(place) else FolderTree(place)
    return archive_tree(place) if is_archive(place) else None


def decode(data: bytes, where: str) -> Image.Image:
    """Returns an image as RGB, upright, what is transparent in it white.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return decode_image(data).convert("RGB")
    except BrokenImageError as error:
        raise ValueError(f"{where} {error}") from error


def _item(
    where: str, name: str, read: Callable[[], bytes], caption: str, repeats: int
) -> Captioned:
    """Reads and checks one image; what has no suffix gets that of its form."""
    try:
        data = read()
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {error.strerror or error}") from error
    decode(data, where)
    if PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES:
        name = name.lstrip(".") + (".png" if data.startswith(b"\x89PNG") else ".jpg")
    return Captioned(name, data, caption, repeats)
