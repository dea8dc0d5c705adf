"""Zip and tar archives as trees of files: nothing is extracted, no entry leads out of the archive,
and what unpacks to absurdly many bytes is refused before it is unpacked.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import IO

from ddim_core.common.plain_files import MOST_DEPTH, MOST_FILES, open_regular
from ddim_core.common.printable import printable
from ddim_core.images.sources.file_tree import MOST_IMAGE

ZIP, TARS, PACKED_TARS = ".zip", (".tar",), (".tar.gz", ".tgz")
ARCHIVES = (ZIP, *TARS, *PACKED_TARS)
SPLITS = frozenset({"train", "test", "val", "validation"})
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
ENCRYPTED = 1  # a zip entry's flag
LEAST_LIMIT, MOST_UNPACKED = 2**28, 100  # bytes, and times the length of an archive
MOST_BYTES = 2**36
MOST_FOLDERS, MOST_HEAD = 100_000, 2**16  # of a tar: folders, and bytes of a name or attributes
HEADS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
     tarfile.GNUTYPE_LONGLINK}
)  # fmt: skip
PIECE = 2**20
BLOCK = tarfile.BLOCKSIZE
DRIVE = re.compile(r"[A-Za-z]:/")

Reader = Callable[[int], bytes]  # of one entry: the most bytes that are wanted


@dataclass(frozen=True, eq=False)
class ArchiveTree:
    """The files of an archive.

    Attributes:
        name: The archive's, without its suffix.
        entries: What reads each file.
    """

    name: str
    entries: Mapping[PurePosixPath, Reader]

    @cached_property
    def files(self) -> tuple[PurePosixPath, ...]:
        return tuple(sorted(file for file in self.entries if not _is_hidden(file)))

    @cached_property
    def hidden(self) -> tuple[str, ...]:
        return tuple(sorted(file.as_posix() for file in self.entries if _is_hidden(file)))

    def read(self, file: PurePosixPath, most: int = MOST_IMAGE) -> bytes:
        try:
            data = self.entries[file](most)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise OSError(f"cannot be unpacked: {error}") from error
        if len(data) > most:
            raise OSError(f"it is longer than {most} bytes")
        return data

    def digest(self, file: PurePosixPath) -> str:
        return hashlib.sha256(self.read(file)).hexdigest()

    def below(self, folder: str) -> ArchiveTree:
        return ArchiveTree(folder, _relative(self.entries, folder))


def is_archive(path: Path) -> bool:
    """Tells by its name whether a file is an archive of a form that is read."""
    return path.name.lower().endswith(ARCHIVES)


def archive_tree(path: Path) -> ArchiveTree:
    """Opens an archive; a folder that all of it lies in (but `train` and the like) is left away.

    Raises:
        ValueError: If it is damaged, encrypted or absurdly large, or has an entry that is a link
            or a device, leads out of it, or is there twice.
    """
    try:
        read = _zip_entries if path.name.lower().endswith(ZIP) else _tar_entries
        found = read(path)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError, EOFError,
            NotImplementedError, ValueError, RecursionError) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        shown = printable(path.name)
        raise ValueError(f"{shown} cannot be read as an archive: {reason}") from error
    name = path.name[: -len(next(s for s in ARCHIVES if path.name.lower().endswith(s)))]
    return ArchiveTree(printable(name), _without_common_folder(found))


def _zip_entries(path: Path) -> dict[PurePosixPath, Reader]:
    file = open_regular(path)
    archive = zipfile.ZipFile(file)
    found: dict[PurePosixPath, Reader] = {}
    limit, size = _limit(path), 0
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        shown = info.orig_filename.replace("\\", "/")  # as Windows' programs write it
        name = _plain(shown, found)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"its entry {name} is a link or a device; it must be a file")
        if info.flag_bits & ENCRYPTED:
            raise ValueError(f"its entry {name} is encrypted")
        if shown.endswith("/"):
            continue
        if info.compress_type not in METHODS:
            raise ValueError(f"its entry {name} is packed by another method than deflate")
        size += info.file_size
        if size > limit:
            raise ValueError(f"it unpacks to more than {limit} bytes; that is too many")
        if not name.parts:
            raise ValueError("it has a file without a name")
        found[name] = partial(_zip_read, archive, info)
    return found


def _zip_read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    with archive.open(info) as entry:
        return entry.read(most + 1)


class _Entry(tarfile.TarInfo):
    """An entry whose heads are short: tarfile reads names and attributes whole, record by record,
    and a megabyte unpacks to hours of them."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in HEADS and self.size > MOST_HEAD):
            raise ValueError(f"a head is {self.size} bytes long; at most {MOST_HEAD} are read")
        entry: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return entry


def _tar_entries(path: Path) -> dict[PurePosixPath, Reader]:
    file: IO[bytes] = open_regular(path)
    if path.name.lower().endswith(PACKED_TARS):
        file = _unpacked(file, _limit(path))
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    found: dict[PurePosixPath, Reader] = {}
    end = n_folders = 0
    with tarfile.open(fileobj=file, mode="r:", tarinfo=_Entry) as archive:
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # they would fill memory
            name = _plain(entry.name, found)
            if entry.isdir():
                end = entry.offset_data
                n_folders += 1
                if n_folders > MOST_FOLDERS:
                    raise ValueError(f"it has over {MOST_FOLDERS} folders")
                continue
            if not entry.isreg() or entry.issparse():
                raise ValueError(f"its entry {name} is a link or a device; it must be a file")
            if entry.offset_data + entry.size > length:
                raise ValueError(f"it ends within its entry {name}")
            end = entry.offset_data + -(-entry.size // BLOCK) * BLOCK
            if not name.parts:
                raise ValueError("it has a file without a name")
            found[name] = partial(_tar_read, file, entry.offset_data, entry.size)
    file.seek(end)
    if any(file.read(BLOCK)):  # where tarfile stops without a word
        raise ValueError(f"it is damaged after {len(found)} files")
    return found


def _tar_read(file: IO[bytes], offset: int, size: int, most: int) -> bytes:
    file.seek(offset)
    data = file.read(min(size, most + 1))
    if len(data) < min(size, most + 1):
        raise OSError("the archive has become shorter")
    return data


def _unpacked(packed: IO[bytes], limit: int) -> IO[bytes]:
    """The content of a gzip file, in a file without a name, that ends with this process."""
    plain = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the tree)
    size = 0
    with packed, gzip.open(packed) as unpacking:
        while piece := unpacking.read(PIECE):
            size += len(piece)
            if size > limit:
                raise ValueError(f"it unpacks to more than {limit} bytes; that is too many")
            plain.write(piece)
    return plain


def _limit(path: Path) -> int:
    return min(MOST_BYTES, max(LEAST_LIMIT, MOST_UNPACKED * path.stat().st_size))


def _plain(name: str, found: Mapping[PurePosixPath, Reader]) -> PurePosixPath:
    """A name that stays within the archive and was not there before."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or DRIVE.match(name):
        raise ValueError(f"its entry {printable(name)!r} leads out of it; names must be relative")
    if path in found:
        raise ValueError(f"it holds {printable(name)!r} twice")
    if len(path.parts) > MOST_DEPTH or len(found) >= MOST_FILES:
        raise ValueError(f"it has over {MOST_FILES} files, or folders over {MOST_DEPTH} deep")
    return path


def _is_hidden(file: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in file.parts)


def _without_common_folder(
    entries: Mapping[PurePosixPath, Reader],
) -> Mapping[PurePosixPath, Reader]:
    visible = [file for file in entries if not _is_hidden(file)]
    first = {file.parts[0] for file in visible}
    if len(first) != 1 or first & SPLITS or any(len(file.parts) == 1 for file in visible):
        return entries
    return _relative(entries, first.pop())


def _relative(entries: Mapping[PurePosixPath, Reader], folder: str) -> dict[PurePosixPath, Reader]:
    """The entries below a folder; hidden ones elsewhere keep their names, to be told of."""
    return {
        file.relative_to(folder) if inside else file: read
        for file, read in entries.items()
        if (inside := file.parts[0] == folder) or _is_hidden(file)
    }
