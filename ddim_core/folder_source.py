"""Folders of image files: flat, a folder per class, splits, captions in `metadata.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ddim_core import plain_files
from ddim_core.digest import digest, file_digest
from ddim_core.sources import ALL, Row, licence_of, printable

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
SPLIT_NAMES = ("test", "train", "val", "validation")
CAPTIONS = "metadata.jsonl"
CAPTION_KEYS = ("text", "caption", "prompt")


@dataclass(frozen=True)
class FolderSource:
    """A folder of image files: flat, with a folder per class, or with splits (as AFHQ has them).

    Attributes:
        files: All image files below it, relative, in the order of their names.
    """

    folder: Path
    files: tuple[Path, ...]
    licence: str = ""

    @classmethod
    def of(cls, folder: Path) -> FolderSource:
        """Looks for images through links too; hidden files and folders do not count.

        Raises:
            ValueError: If there is no image.
        """
        files = [f for f in walk(folder) if f.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ValueError(f"{printable(folder.name)} holds no image file ({kinds})")
        return cls(folder, tuple(files), licence_of(folder))

    @property
    def name(self) -> str:
        return printable(self.folder.resolve().name)

    @property
    def splits(self) -> tuple[str, ...]:
        first = {file.parts[0] for file in self.files if len(file.parts) > 1}
        return tuple(name for name in SPLIT_NAMES if name in first)

    @property
    def class_names(self) -> tuple[str, ...]:
        names = {name for file in self.files if (name := self._class_of(file)) is not None}
        return tuple(sorted(names)) if len(names) > 1 else ()  # one class tells nothing apart

    def content(self) -> str:
        images = set(self.files)
        read = [f for f in walk(self.folder) if f in images or f.name == CAPTIONS]
        return digest([[printable(f.as_posix()), _content(self.folder / f)] for f in read])

    def rows(self, split: str) -> Iterator[Row]:
        chosen = [f for f in self.files if split == ALL or f.parts[0] == split]
        labelled = bool(self.class_names) and all(self._class_of(f) is not None for f in chosen)
        captions = self._captions(chosen)
        for file in chosen:
            yield Row(
                printable(file.as_posix()),
                partial(read_regular, self.folder / file),
                self._class_of(file) if labelled else None,
                captions.get(file),
            )

    def _class_of(self, file: Path) -> str | None:
        parents = file.parts[:-1]
        if parents and parents[0] in SPLIT_NAMES:
            parents = parents[1:]
        return printable(parents[-1]) if parents else None

    def _captions(self, files: list[Path]) -> dict[Path, str]:
        """Texts of `metadata.jsonl` files by image; all images of a split have one, or none."""
        found: dict[Path, str] = {}
        for where in dict.fromkeys(parent for file in files for parent in file.parents):
            listing = self.folder / where / CAPTIONS
            if listing.is_file():
                found |= {where / name: text for name, text in captions_of(listing).items()}
        known = {file: found[file] for file in files if file in found}
        without = [file for file in files if file not in known]
        if known and without:
            raise ValueError(
                f"{len(without)} of {len(files)} images have no caption in {CAPTIONS}, the first "
                f"is {printable(without[0].as_posix())}; give all of them one, or none"
            )
        return known


def captions_of(listing: Path) -> dict[str, str]:
    """Reads a `metadata.jsonl`: one object a line with `file_name`, and `text` (or `caption`,
    `prompt`); file names are relative to its folder.

    Raises:
        ValueError: If a line is no such object, or it names a file that is not there.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(listing.read_bytes().splitlines(), start=1):
        where = f"line {number} of {listing.parent.name}/{CAPTIONS}"
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name = entry["file_name"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{where} is no JSON object with a file_name") from error
        text = next((entry[key] for key in CAPTION_KEYS if key in entry), None)
        if not isinstance(name, str) or not isinstance(text, str | None):
            raise ValueError(f"{where} must have texts as file_name and caption")
        if not (listing.parent / name).is_file():
            raise ValueError(f"{where} names {printable(name)!r}, which is not there")
        if text is not None:
            found[name] = text
    return found


def walk(folder: Path) -> list[Path]:
    """Returns all files below a folder, relative, by name; through links, but never in circles.

    Raises:
        ValueError: If a folder cannot be read.
    """
    return plain_files.walk(folder)


def read_regular(path: Path) -> bytes:
    """Reads a file; a pipe or a device, which may never end, is refused.

    Raises:
        OSError: If it cannot be read.
    """
    return plain_files.read_bytes(path, plain_files.MOST_IMAGE)


def _content(path: Path) -> str:
    try:
        return file_digest(path) if plain_files.is_regular(path) else "unreadable"
    except OSError:
        return "unreadable"
