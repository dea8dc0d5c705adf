"""The images of another trainer's subsets, as a data set of this project is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath

from ddim_core.common.digest import digest
from ddim_core.common.plain_files import MOST_LINE
from ddim_core.common.printable import printable
from ddim_core.images.sources.archives import archive_tree, is_archive
from ddim_core.images.sources.captions import METADATA, sidecar_text
from ddim_core.images.sources.file_tree import FolderTree, Tree, licence_of
from ddim_core.images.sources.folder import is_image
from ddim_core.images.sources.source import Row, named
from ddim_core.images.sources.table import is_saved_to_disk
from ddim_core.lora.trainers.ai_toolkit import read_ai_toolkit
from ddim_core.lora.trainers.kohya import NAME, kohya_folders, read_kohya
from ddim_core.lora.trainers.settings import Subset, TrainerSettings

READERS = {".toml": read_kohya, ".yaml": read_ai_toolkit, ".yml": read_ai_toolkit}
NOTHING = TrainerSettings("", (), {})


@dataclass(frozen=True, eq=False)
class SubsetSource:
    """The images that lie directly in one folder, each with its caption.

    Attributes:
        tree: The folder's files.
        subset: How they are taken.
        prefix: Before the names of its images, which then differ from those of other folders.
        told: What is to be said of the settings.
        captioned: Whether captions are looked for.
    """

    tree: Tree
    subset: Subset
    prefix: str
    told: tuple[str, ...] = ()
    captioned: bool = True
    splits: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.tree.name

    @property
    def repeats(self) -> int:
        """How often each of its images is seen, beside those of other folders."""
        return self.subset.repeats

    @cached_property
    def licence(self) -> str:
        return licence_of(self.tree)

    @cached_property
    def files(self) -> tuple[PurePosixPath, ...]:
        """The image files, by name."""
        return tuple(f for f in self.tree.files if is_image(f) and len(f.parts) == 1)

    @property
    def notes(self) -> tuple[str, ...]:
        used = {*self.files, *(self._beside(file) for file in self.files)}
        others = [file.as_posix() for file in self.tree.files if file not in used]
        left = (f"left out of {self.name} ({len(others)}): {named(others)}",) if others else ()
        return (*self.told, *left)

    def content(self) -> str:
        beside = [self._beside(file) for file in self.files if self.captioned]
        read = [*self.files, *(file for file in beside if file)]
        how = [
            self.prefix,
            self.told,
            [str(x) for x in astuple(replace(self.subset, folder=Path()))],
        ]
        return digest([how, *([file.as_posix(), self._digest(file)] for file in read)])

    def rows(self, split: str) -> Iterator[Row]:
        for file in self.files:
            where = f"{self.name}/{printable(file.as_posix())}"
            caption = self._caption(file, where) if self.captioned else None
            read = partial(self.tree.read, file)
            yield Row(where, read, None, caption, f"{self.prefix}{file.as_posix()}")

    def without_captions(self) -> SubsetSource:
        """The same images alone."""
        return replace(self, captioned=False)

    def _beside(self, file: PurePosixPath) -> PurePosixPath | None:
        """The file of an image's caption."""
        places = (file.with_suffix(ending) for ending in self.subset.extensions)
        return next((place for place in places if place in self._there), None)

    @cached_property
    def _there(self) -> frozenset[PurePosixPath]:
        return frozenset(self.tree.files)

    def _caption(self, file: PurePosixPath, where: str) -> str:
        beside = self._beside(file)
        if beside is None and not self.subset.words:
            endings = " or ".join(self.subset.extensions)
            raise ValueError(
                f"{where} has no caption: there is no {endings} file beside it, and no words are "
                "given for images without one"
            )
        if beside is None:
            return self.subset.caption(self.subset.words)
        try:
            data = self.tree.read(beside, MOST_LINE)
        except OSError as error:
            raise ValueError(f"{beside} cannot be read: {error.strerror or error}") from error
        return self.subset.caption(sidecar_text(data, printable(beside.as_posix())))

    def _digest(self, file: PurePosixPath) -> str:
        try:
            return self.tree.digest(file)
        except OSError:
            return "unreadable"


def settings_of(place: Path) -> TrainerSettings:
    """Returns what another trainer's file at a place asks for; nothing of a folder, or of a file
    of another form.

    Raises:
        ValueError: If it cannot be read.
    """
    reader = READERS.get(place.suffix.lower())
    return reader(place) if reader and place.is_file() else NOTHING


def subset_sources(place: Path, of_class: bool = False) -> list[SubsetSource] | None:
    """Opens images as another trainer's file or folders at a place name them: those trained on, or
    those of the subject's class. None if nothing of another trainer's lies there.

    Raises:
        ValueError: If settings cannot be read, or a folder holds no image.
    """
    found = _opened(place)
    if found is None:
        return None
    for source in found:
        if not source.files:
            raise ValueError(f"the folder {source.name} holds no image file")
    chosen = [source for source in found if source.subset.is_class is of_class]
    others = [source for source in found if source not in chosen]
    if of_class:
        return chosen
    if not chosen:
        raise ValueError(f"{place.name} names no images but those of the class; there must be some")
    if others:
        n_class = sum(len(source.files) for source in others)
        note = (
            f"{n_class} images are the class's: only `ddim lora subject` with its prior sees them"
        )
        chosen[0] = replace(chosen[0], told=(*chosen[0].told, note))
    return chosen


def _opened(place: Path) -> list[SubsetSource] | None:
    settings = settings_of(place)
    if settings.subsets:
        return [
            SubsetSource(
                FolderTree(subset.folder),
                subset,
                f"{number}-{subset.folder.resolve().name}/",
                settings.notes if not number else (),
            )
            for number, subset in enumerate(settings.subsets)
        ]
    tree = _tree(place)
    if tree is None:
        return None
    images = [file for file in tree.files if is_image(file)]
    if any(len(f.parts) == 1 for f in images) or any(f.name in METADATA for f in tree.files):
        return None
    subsets = kohya_folders(sorted({file.parts[0] for file in images}))
    if not subsets:
        return None
    return [
        SubsetSource(tree.below(name), subset, f"{name}/", _outside(subsets, images, i))
        for i, (name, subset) in enumerate(subsets.items())
    ]


def _outside(
    subsets: dict[str, Subset], images: list[PurePosixPath], index: int
) -> tuple[str, ...]:
    """What of kohya's layout is said once: how often images are seen, and what has no number."""
    if index:
        return ()
    seen = ", ".join(f"{s.repeats} times those of {printable(name)}" for name, s in subsets.items())
    others = sorted({file.parts[0] for file in images if file.parts[0] not in subsets})
    without = (f"folders without a number of repeats are left out: {named(others)}",)
    return (f"{NAME}'s folders: seen {seen}", *(without if others else ()))


def _tree(place: Path) -> Tree | None:
    if place.is_dir():
        return None if is_saved_to_disk(place) else FolderTree(place)
    return archive_tree(place) if is_archive(place) else None
