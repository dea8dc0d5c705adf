"""Image files in a folder or archive: flat, a folder per class, splits, captions beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import PurePath, PurePosixPath

from ddim_core.common.digest import digest
from ddim_core.common.plain_files import MOST_LINE, MOST_TEXT
from ddim_core.common.printable import printable
from ddim_core.images.sources.captions import (
    METADATA,
    SIDECARS,
    listed_captions,
    sidecar_text,
    without_captions,
)
from ddim_core.images.sources.file_tree import CARD, Tree, licence_of
from ddim_core.images.sources.source import ALL, Row, named

IMAGE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".webp", ".bmp", ".gif",
     ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)  # fmt: skip
SPLIT_NAMES = ("test", "train", "val", "validation")


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Image files: flat, with a folder per class, or with splits (as AFHQ has them).

    Attributes:
        tree: All files.
        files: The image files among them, in the order of their names.
        listings: The files of metadata that are read.
        sidecars: The text file beside each image that has one.
    """

    tree: Tree
    files: tuple[PurePosixPath, ...]
    listings: tuple[PurePosixPath, ...]
    sidecars: Mapping[PurePosixPath, PurePosixPath]

    @classmethod
    def of(cls, tree: Tree) -> FolderSource:
        """Finds the images of a folder or archive.

        Raises:
            ValueError: If there is none.
        """
        images = tuple(f for f in tree.files if is_image(f))
        if not images:
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            there_is = f"; it holds {named([f.as_posix() for f in tree.files])}" * bool(tree.files)
            raise ValueError(f"{tree.name} holds no image file ({kinds}){there_is}")
        return cls(tree, images, _listings(tree), _sidecars(tree, images))

    @property
    def name(self) -> str:
        return self.tree.name

    @cached_property
    def licence(self) -> str:
        return licence_of(self.tree)

    @property
    def splits(self) -> tuple[str, ...]:
        first = {file.parts[0] for file in self.files if len(file.parts) > 1}
        return tuple(name for name in SPLIT_NAMES if name in first)

    @property
    def class_names(self) -> tuple[str, ...]:
        names = {name for file in self.files if (name := self._class_of(file)) is not None}
        return tuple(sorted(names)) if len(names) > 1 else ()  # one class tells nothing apart

    @property
    def notes(self) -> tuple[str, ...]:
        used = {CARD, *self.files, *self._captioning}
        others = [f.as_posix() for f in self.tree.files if f not in used]
        kinds = {"no images": others, "hidden": list(self.tree.hidden)}
        left_out = tuple(
            f"left out because {kind} ({len(names)}): {named(names)}"
            for kind, names in kinds.items()
            if names
        )
        bare = () if self._listed else self.listings
        told = tuple(without_captions(file, self._text(file, MOST_TEXT)) for file in bare)
        return (*left_out, *told)

    def content(self) -> str:
        read = {*self.files, *self._captioning}
        return digest(
            [[printable(f.as_posix()), self._content(f)] for f in self.tree.files if f in read]
        )

    def rows(self, split: str) -> Iterator[Row]:
        chosen = [f for f in self.files if split == ALL or f.parts[0] == split]
        labelled = bool(self.class_names) and all(self._class_of(f) is not None for f in chosen)
        captions = self._captions(chosen)
        for file in chosen:
            yield Row(
                printable(file.as_posix()),
                partial(self.tree.read, file),
                self._class_of(file) if labelled else None,
                captions.get(file),
                file.as_posix(),
            )

    def without_captions(self) -> FolderSource:
        """The same images alone."""
        return replace(self, listings=(), sidecars={})

    @property
    def has_all_sidecars(self) -> bool:
        return len(self.sidecars) == len(self.files)

    def _class_of(self, file: PurePosixPath) -> str | None:
        parents = file.parts[:-1]
        if parents and parents[0] in SPLIT_NAMES:
            parents = parents[1:]
        return printable(parents[-1]) if parents else None

    def _content(self, file: PurePosixPath) -> str:
        try:
            return self.tree.digest(file)
        except OSError:
            return "unreadable"

    @property
    def _captioning(self) -> tuple[PurePosixPath, ...]:
        """The files that captions come from: all metadata; where it has none, text files."""
        beside = self.sidecars.values() if not self._listed and self.has_all_sidecars else ()
        return (*self.listings, *beside)

    @cached_property
    def _listed(self) -> dict[PurePosixPath, str]:
        """The captions that metadata give."""
        found: dict[PurePosixPath, str | None] = {}
        images = frozenset(self.files)
        for listing in self.listings:
            here = listed_captions(listing, self._text(listing, MOST_TEXT), images)
            for image in here.keys() & found.keys():
                raise ValueError(
                    f"{printable(listing.as_posix())} names {printable(image.as_posix())} a second "
                    "time, after another file of metadata; every image has one caption"
                )
            found |= here
        return {image: text for image, text in found.items() if text is not None}

    def _captions(self, files: list[PurePosixPath]) -> dict[PurePosixPath, str]:
        """Captions by image; all images of a split have one, or none."""
        known = {file: self._listed[file] for file in files if file in self._listed}
        without = [file for file in files if file not in known]
        if known and without:
            listing = self.listings[0].name
            raise ValueError(
                f"{len(without)} of {len(files)} images have no caption in {listing}, the first "
                f"is {printable(without[0].as_posix())}; give all of them one, or none"
            )
        if self._listed or not self.has_all_sidecars:
            return known
        texts = {file: self.sidecars[file] for file in files}
        return {
            file: sidecar_text(self._text(text, MOST_LINE), printable(text.as_posix()))
            for file, text in texts.items()
        }

    def _text(self, file: PurePosixPath, most: int) -> bytes:
        try:
            return self.tree.read(file, most)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ValueError(f"{printable(file.as_posix())} cannot be read: {reason}") from error


def is_image(file: PurePath) -> bool:
    """Tells by its name whether a file is an image of a format that is read."""
    return file.suffix.lower() in IMAGE_SUFFIXES


def _listings(tree: Tree) -> tuple[PurePosixPath, ...]:
    """The metadata of each folder; of several forms the first of `METADATA`."""
    chosen: dict[PurePosixPath, PurePosixPath] = {}
    for name in METADATA:
        for file in tree.files:
            if file.name == name:
                chosen.setdefault(file.parent, file)
    return tuple(sorted(chosen.values()))


def _sidecars(tree: Tree, images: tuple[PurePosixPath, ...]) -> dict[PurePosixPath, PurePosixPath]:
    there = frozenset(tree.files)
    found = {}
    for image in images:
        beside = (image.with_suffix(suffix) for suffix in SIDECARS)
        if (text := next((path for path in beside if path in there), None)) is not None:
            found[image] = text
    return found
