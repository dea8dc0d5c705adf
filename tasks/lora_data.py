"""Captioned images, or photos of a subject, into the store, as a folder with metadata.jsonl."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from ddim_core.digest import digest, file_digest
from ddim_core.lora_data import (
    METADATA,
    Captioned,
    files_below,
    locate_data,
    read_captioned,
    read_photos,
    write_captioned,
)
from tasks import store
from tasks.caching import cached_task
from tasks.store import ArtifactRef

CONTENT = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".jsonl", ".txt", ".caption",
                     ".parquet"})  # fmt: skip


def data_content(place: str) -> str:
    """Returns a digest over the names and bytes of all that captioned images consist of."""
    path = Path(place)
    files = [path] if path.is_file() else files_below(path)
    kept = [f for f in files if f.suffix.lower() in CONTENT]
    return digest([[f.relative_to(path).as_posix(), file_digest(f)] for f in kept])


def data_place(name: str) -> str:
    """Returns where captioned images lie; a data set of the hub is fetched.

    Raises:
        ValueError: If they are nowhere.
    """
    return str(locate_data(name))


@cached_task
def prepare_captioned(content: str, location: str) -> dict[str, Any]:
    """Reads and checks captioned images; returns a reference to their folder.

    Cached on the content, wherever it lies.
    """
    return _stored(read_captioned(Path(location)), content, location)


@cached_task
def prepare_photos(content: str, prompt: str, location: str) -> dict[str, Any]:
    """Reads and checks photos of a subject, each captioned with the prompt."""
    return _stored(read_photos(Path(location), prompt), content, location)


def captions_of(data: ArtifactRef) -> list[str]:
    """Returns the captions of a stored folder, in the order of its images (by name)."""
    lines = (store.get_folder(data) / METADATA).read_text(encoding="utf-8").splitlines()
    rows = sorted((json.loads(line) for line in lines if line), key=lambda row: row["file_name"])
    return [row["text"] for row in rows]


def _stored(items: list[Captioned], content: str, location: str) -> dict[str, Any]:
    if data_content(location) != content:
        raise ValueError(f"the files of {location!r} changed while they were read; run it again")
    with tempfile.TemporaryDirectory() as folder:
        write_captioned(items, Path(folder))
        ref = store.put_folder(Path(folder))
    return {**ref, "n_images": len(items)}
