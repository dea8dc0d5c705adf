"""Opens what a stranger may have put there: regular files of bounded size, folders without circles.

A pipe waits for ever, a device never ends, a link may lead back to itself, and a thousand nested
folders are more than a path can name. Each is refused here in words, before a byte is read.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

MOST_DEPTH = 64  # folders below one
MOST_FILES = 2_000_000  # below a folder; ImageNet has 1.3 million
MOST_AGAIN = 1_000  # folders that links lead to once more: a few links doubled make 2^n of them
MOST_BYTES = 2**36  # of one file
LARGE, MOST_HOLES = 2**28, 100  # bytes; and times what is there of a larger file
MOST_TEXT = 2**28  # bytes of a text that is read line by line
MOST_LINE = 2**20  # bytes of one of its lines
MOST_JSON = 2**24  # bytes; a schedule of a million given betas is no longer
MOST_VALUES = 2**21  # in one JSON text
MOST_NESTED = 100
AS_LONG = f".{40 * '-'}"  # about as long a name as a checkpoint's files below a folder have
LARGEST_INT = 2**128  # a tokenizer without a length has one of 1e30
KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


class PlainFileError(OSError, ValueError):
    """A file or folder that cannot be read safely; the message says which and why."""


def is_regular(path: Path) -> bool:
    """Tells a file that can be opened and ends; through links, and whatever its name."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # not there, a circle of links, or no name of a file
        return False


def is_folder(path: Path) -> bool:
    """Tells a folder, through links, and whatever its name."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_there(path: Path) -> bool:
    """Tells whether a file is there, where a missing one would mean something else.

    Raises:
        PlainFileError: If a pipe, a device or a circle of links has its name, which `is_file` calls
            missing. A folder of that name, and a link that leads nowhere, are no file.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        told = f"{shown_name(path)} cannot be read: {error.strerror}"
        raise PlainFileError(told) from None
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise PlainFileError(f"{shown_name(path)} is {_kind(mode)}; it must be a regular file")
    return stat.S_ISREG(mode)


def open_regular(path: Path, most: int = MOST_BYTES) -> BufferedReader:
    """Opens a regular file to read its bytes.

    Raises:
        PlainFileError: If it is anything else (what a folder has as `is_file` may be replaced
            meanwhile, so the open file counts), or longer than `most` bytes.
        OSError: If it is not there or cannot be read.
    """
    shown = shown_name(path)
    try:
        _require_regular(path.stat(), shown, most)  # opening a device may already do something
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise error if isinstance(error, OSError) else PlainFileError(f"{shown}: {error}") from None
    opened = os.fdopen(file, "rb")
    try:
        _require_regular(os.fstat(file), shown, most)
        _require_there(file, shown)
    except PlainFileError:
        opened.close()
        raise
    return opened


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Returns the bytes of a regular file of at most `most`; raises as `open_regular`."""
    with open_regular(path, most) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1)  # room is made for all that is asked for
    if len(data) > size:
        raise PlainFileError(f"{shown_name(path)} grows while it is read; give a file that is done")
    return data


def byte_lines(path: Path, most: int = MOST_TEXT) -> Iterator[bytes]:
    r"""Yields a regular file's lines, split at `\n` alone and without it, one at a time in memory.

    Raises:
        PlainFileError: As `open_regular`; or if a line is longer than `MOST_LINE` bytes.
    """
    with open_regular(path, most) as file:
        number = 0
        while line := file.readline(MOST_LINE + 1):
            number += 1
            if len(line) > MOST_LINE:
                raise PlainFileError(
                    f"line {number} of {shown_name(path)} is longer than {MOST_LINE} bytes"
                )
            yield line.removesuffix(b"\n")


def parse_json(text: str | bytes, where: str) -> Any:
    """Returns what a JSON text holds; no NaN, no number that is absurd, nothing nested too deep.

    Raises:
        ValueError: If it is no such JSON.
    """
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    n_values = text.count(",") + text.count("[") + text.count("{")
    if len(text) > MOST_JSON or n_values > MOST_VALUES:
        raise ValueError(f"{where} has {len(text)} characters, some {n_values} values; too many")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise ValueError(f"{where} is not JSON: {reason}") from error
    require_plain(found, where)
    return found


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        PlainFileError, OSError: As `open_regular`.
        ValueError: As `parse_json`.
    """
    return parse_json(read_bytes(path, MOST_JSON), shown_name(path))


def require_plain(value: Any, where: str) -> None:
    """Makes sure of plain settings: whole numbers of 128 bits, no NaN, not nested absurdly.

    Raises:
        ValueError: If they are not.
    """
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MOST_NESTED:
            raise ValueError(f"{where} is nested more than {MOST_NESTED} deep")
        if isinstance(item, dict):
            waiting += [(x, depth + 1) for x in item.values()]
        elif isinstance(item, (list, tuple)):
            waiting += [(x, depth + 1) for x in item]
        elif isinstance(item, int) and abs(item) >= LARGEST_INT:
            raise ValueError(f"{where} has a whole number of {item.bit_length()} bits; at most 128")
        elif isinstance(item, float) and item != item:
            raise ValueError(f"{where} has a NaN; every number must be one")


def walk(folder: Path, most_depth: int = MOST_DEPTH, hidden: bool = False) -> list[Path]:
    """Returns all that is no folder below a folder, relative, by name; through links, but never in
    circles. What is hidden counts only where that is asked for.

    Pipes and links that lead nowhere are among it: what reads them says so.

    Raises:
        PlainFileError: If a folder cannot be read, or there are too many, or too deep ones.
    """
    found: list[str] = []
    top = _stat_of(folder)
    seen, again = {top}, 0
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (top,))]
    while waiting:
        here, above = waiting.pop()
        if len(above) > most_depth:
            raise PlainFileError(
                f"{shown_name(folder)} has folders more than {most_depth} deep; it must have less"
            )
        for entry in _entries(folder, here):
            if entry.name.startswith(".") and not hidden:
                continue
            name = f"{here}/{entry.name}" if here else entry.name
            identity = _folder_identity(entry)
            if identity is None:
                found.append(name)
            elif identity not in above:
                again += identity in seen
                seen.add(identity)
                waiting.append((name, (*above, identity)))
        if len(found) > MOST_FILES or again > MOST_AGAIN:
            many = MOST_AGAIN if again > MOST_AGAIN else MOST_FILES
            what = f"{many} links to folders" if again > MOST_AGAIN else f"{many} files"
            raise PlainFileError(f"{shown_name(folder)} has over {what}; name a part of it")
    return sorted(Path(name) for name in found)


def walk_regular(folder: Path) -> list[Path]:
    """Returns the regular files below a folder, as `walk` does."""
    return [name for name in walk(folder) if is_regular(folder / name)]


def require_plain_tree(place: Path) -> None:
    """Makes sure that a place is a regular file, or a folder of such and of folders alone.

    Raises:
        PlainFileError: If it is not, with the first that is something else.
    """
    try:
        status = place.stat()
    except (OSError, ValueError) as error:
        raise PlainFileError(f"{shown_name(place)} cannot be read: {_reason(error)}") from error
    if not stat.S_ISDIR(status.st_mode):
        _require_regular(status, shown_name(place), MOST_BYTES)
        return
    for name in walk(place):
        try:
            _require_regular((place / name).stat(), shown_name(name), MOST_BYTES)
        except FileNotFoundError:
            continue  # a link that leads nowhere is as good as no file
        except OSError as error:
            where = f"{shown_name(name)} in {shown_name(place)}"
            raise PlainFileError(f"{where} cannot be read: {_reason(error)}") from error


def require_makeable(folder: Path, name: str) -> None:
    """Makes sure that a folder can be made and written into, by doing so; what this makes is taken
    away again.

    Args:
        folder: It, or where it will be.
        name: The parameter that gives it, for messages.

    Raises:
        ValueError: If it cannot: a file is in the way, a name is too long, nobody may write there.
    """
    place, made = folder.absolute(), []
    try:
        for part in (*reversed(place.parents), place):
            if not os.path.lexists(part):
                part.mkdir()
                made.append(part)
        Path(tempfile.mkdtemp(prefix=AS_LONG, dir=place)).rmdir()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name} is {str(folder)!r:.200}, where nothing can be written ({_reason(error)}); "
            "name another place"
        ) from error
    finally:
        for part in reversed(made):
            with suppress(OSError):  # somebody else has put something there
                part.rmdir()


def shown_name(path: Path) -> str:
    """A file's name on one line, for messages."""
    name = path.name or str(path)
    short = name if len(name) <= 100 else f"{name[:100]}..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in short)


def _require_regular(status: os.stat_result, shown: str, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PlainFileError(f"{shown} is {_kind(status.st_mode)}; it must be a regular file")
    if status.st_size > most:
        raise PlainFileError(f"{shown} is {status.st_size} bytes long; at most {most} are read")


def _require_there(file: int, shown: str) -> None:
    """Refuses a large file that is nearly all holes: a kilobyte on disk, hours to read."""
    status = os.fstat(file)
    size = status.st_size
    if size <= LARGE or 512 * status.st_blocks * MOST_HOLES > size:
        return
    place = held = 0
    while place < size and held * MOST_HOLES <= size:
        try:
            start = os.lseek(file, place, os.SEEK_DATA)
        except OSError:  # nothing but a hole behind it
            break
        place = os.lseek(file, start, os.SEEK_HOLE)
        held += place - start
    os.lseek(file, 0, os.SEEK_SET)
    if held * MOST_HOLES <= size:
        raise PlainFileError(
            f"{shown} claims {size} bytes of which {held} are there; the rest are holes"
        )


def _kind(mode: int) -> str:
    return next((name for is_it, name in KINDS if is_it(mode)), "something else")


def _stat_of(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except (OSError, ValueError) as error:
        raise PlainFileError(f"{shown_name(folder)} cannot be read: {_reason(error)}") from error
    return status.st_dev, status.st_ino


def _entries(folder: Path, below: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder / below) as entries:
            return list(entries)
    except OSError as error:
        where = shown_name(folder / below)
        raise PlainFileError(f"{where} cannot be read: {_reason(error)}") from error


def _folder_identity(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    """What tells a folder from others, through links; None for all else."""
    try:
        if not entry.is_dir():
            return None
        status = entry.stat()
    except OSError:  # a circle of links
        return None
    return status.st_dev, status.st_ino


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
