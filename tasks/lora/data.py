"""Captioned images, or photos of a subject, into the store, as a folder with metadata.jsonl."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim_core.images.sources.source import Source
from ddim_core.lora.data import (
    METADATA,
    REPEATS,
    Captioned,
    captioned_sources,
    class_sources,
    content_of,
    locate_data,
    notes_on,
    photo_sources,
    read_captioned,
    read_photos,
    write_captioned,
)
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class CaptionedImages(ArtifactRef):
    """A folder with metadata.jsonl.

    Attributes:
        n_images: How many.
        notes: What was left out of the data, and why.
    """

    n_images: int
    notes: tuple[str, ...] = ()


def data_content(place: str) -> str:
    """Returns a digest of all that captioned images are read from."""
    return content_of(captioned_sources(Path(place)))


def photos_content(place: str) -> str:
    """Returns a digest of all that photos of a subject are read from."""
    return content_of(photo_sources(Path(place)))


def class_content(place: str) -> str:
    """Returns a digest of all that images of a subject's class are read from, where another
    trainer's settings name some; else nothing."""
    sources = class_sources(Path(place))
    return content_of(sources) if sources else ""


def data_place(name: str) -> str:
    """Returns where captioned images lie; a data set of the hub is fetched.

    Raises:
        ValueError: If they are nowhere.
    """
    return str(locate_data(name))


@cached_task
def prepare_captioned(content: str, location: str) -> CaptionedImages:
    """Reads and checks captioned images; returns a reference to their folder.

    Cached on the content, wherever it lies.
    """
    place = Path(location)
    return _stored(read_captioned(place), captioned_sources(place), content, location)


@cached_task
def prepare_class(content: str, location: str) -> CaptionedImages:
    """Reads and checks the images of a subject's class that another trainer's settings name."""
    sources = class_sources(Path(location))
    return _stored(read_captioned(Path(location), sources), sources, content, location)


@cached_task
def prepare_photos(content: str, prompt: str, location: str) -> CaptionedImages:
    """Reads and checks photos of a subject, each captioned with the prompt."""
    place = Path(location)
    return _stored(read_photos(place, prompt), photo_sources(place), content, location)


def captions_of(data: ArtifactRef) -> list[str]:
    """Returns the captions of a stored folder, in the order of its images (by name)."""
    return [row["text"] for row in _rows(data)]


def repeats_of(data: ArtifactRef) -> list[int]:
    """Returns how often each image of a stored folder is seen beside the others, in their order."""
    return [row.get(REPEATS, 1) for row in _rows(data)]


def _rows(data: ArtifactRef) -> list[dict[str, Any]]:
    lines = (store.get_folder(data) / METADATA).read_text(encoding="utf-8").split("\n")
    return sorted((json.loads(line) for line in lines if line), key=lambda row: row["file_name"])


def _stored(
    items: list[Captioned], sources: list[Source], content: str, location: str
) -> CaptionedImages:
    if content_of(sources) != content:
        raise ValueError(f"the files of {location!r} changed while they were read; run it again")
    with tempfile.TemporaryDirectory() as folder:
        write_captioned(items, Path(folder))
        ref = store.put_folder(Path(folder))
    return CaptionedImages(**vars(ref), n_images=len(items), notes=tuple(notes_on(sources)))
