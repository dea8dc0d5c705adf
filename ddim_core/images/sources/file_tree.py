"""Files below one root by their relative names: a folder's, or an archive's (`archives`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

from ddim_core.common.digest import file_digest
from ddim_core.common.plain_files import is_regular, open_regular, read_bytes, walk
from ddim_core.common.printable import printable
from ddim_core.images.sources.source import licence_in

MOST_IMAGE = 2**30  # bytes of one file
CARD = PurePosixPath("README.md")


class Tree(Protocol):
    """Files below one root.

    Attributes:
        name: What people call it, one printable line.
        files: All files but hidden ones, relative, in the order of their names.
        hidden: The hidden files and folders, which are not looked at.
    """

    @property
    def name(self) -> str: ...
    @property
    def files(self) -> tuple[PurePosixPath, ...]: ...
    @property
    def hidden(self) -> tuple[str, ...]: ...

    def read(self, file: PurePosixPath, most: int = MOST_IMAGE) -> bytes:
        """Returns a file's bytes; raises OSError where it cannot be read, or has more than most."""

    def digest(self, file: PurePosixPath) -> str:
        """The sha256 of a file's bytes; raises OSError where it cannot be read."""

    def below(self, folder: str) -> Tree:
        """The files below one of its folders."""


def licence_of(tree: Tree) -> str:
    """Returns the licence that a tree's data card states (`license:` in README.md), or ""."""
    try:
        return licence_in(tree.read(CARD)) if CARD in tree.files else ""
    except OSError:
        return ""


@dataclass(frozen=True)
class FolderTree:
    """A folder's files, through links too, but never in circles."""

    folder: Path

    @property
    def name(self) -> str:
        return printable(self.folder.resolve().name)

    @cached_property
    def files(self) -> tuple[PurePosixPath, ...]:
        return tuple(PurePosixPath(file) for file in walk(self.folder))

    @cached_property
    def hidden(self) -> tuple[str, ...]:
        places = dict.fromkeys(parent for file in self.files for parent in file.parents)
        return tuple(
            (place / found.name).as_posix()
            for place in sorted(places)
            for found in sorted((self.folder / place).iterdir())
            if found.name.startswith(".")
        )

    def read(self, file: PurePosixPath, most: int = MOST_IMAGE) -> bytes:
        return read_regular(self.folder / file, most)

    def digest(self, file: PurePosixPath) -> str:
        open_regular(self.folder / file, MOST_IMAGE).close()
        return file_digest(self.folder / file)

    def below(self, folder: str) -> FolderTree:
        return FolderTree(self.folder / folder)


def read_regular(path: Path, most: int = MOST_IMAGE) -> bytes:
    """Reads a file; a pipe or a device, which may never end, is refused.

    Raises:
        OSError: If it cannot be read.
    """
    if path.exists() and not is_regular(path):
        raise OSError("it is no regular file")
    return read_bytes(path, most)
