"""Captions beside images: `metadata.jsonl`, `.csv` or `.parquet`, as `datasets` reads them in its
imagefolder, and text files with an image's own name, as sd-scripts has them.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ddim_core.common.plain_files import MOST_FILES, MOST_TEXT
from ddim_core.common.printable import printable
from ddim_core.safe_files.claims.parquet_pages import page_claims
from ddim_core.safe_files.texts import BOM, bounded, lines_of, rows_of, text_of

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")  # the first in a folder is read
CAPTION_KEYS = ("text", "caption", "prompt")
SIDECARS = (".txt", ".caption")
FILE_NAME = "file_name"
NO_ENTRY = "is no JSON object with a file_name"
LONGEST = 2**16  # characters of a caption
ROWS_AT_ONCE, PIECE = 4096, 2**26  # of a table: rows, and bytes that they unpack to at most


def caption_of(entry: Mapping[str, Any], where: str) -> str | None:
    """Returns the first of `text`, `caption` and `prompt` that is there and not null, without a
    byte order mark before it.

    Raises:
        ValueError: If it is no text, or absurdly long.
    """
    text = next((entry[key] for key in CAPTION_KEYS if entry.get(key) is not None), None)
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"{where} must have texts as file_name and caption, not {text!r:.50}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{where} has a caption with half of a surrogate pair; it must be text")
    if len(text) > LONGEST:
        raise ValueError(f"{where} has a caption of {len(text)} characters; at most {LONGEST}")
    return text.lstrip(BOM)


def listed_captions(
    listing: PurePosixPath, data: bytes, images: Collection[PurePosixPath]
) -> dict[PurePosixPath, str | None]:
    """Reads one file of metadata: the caption of each image that it names, None where it has none.

    Args:
        listing: Its name; the file names in it are relative to its folder.
        data: Its bytes.
        images: All images that there are.

    Raises:
        ValueError: If it cannot be read, or names an image that is not there or one twice.
    """
    shown = printable(listing.as_posix())
    found: dict[PurePosixPath, str | None] = {}
    held = bounded(_texts(listing, data, images, found), shown)
    for _ in held:
        pass
    return found


def without_captions(listing: PurePosixPath, data: bytes) -> str:
    """Says why a file of metadata, which has been read, gives no caption: what it has instead."""
    shown = printable(listing.as_posix())
    first = next(_entries(listing.suffix, data, shown), None)
    if first is None:
        return f"{shown} names no image, so that there are no captions"
    columns = ", ".join(repr(str(key))[:100] for key in first[1])
    keys = ", ".join(CAPTION_KEYS)
    return f"{shown} gives no captions: they are looked for under {keys}, and it has {columns}"


def _texts(
    listing: PurePosixPath,
    data: bytes,
    images: Collection[PurePosixPath],
    found: dict[PurePosixPath, str | None],
) -> Iterator[str]:
    """Puts the captions of a file of metadata where they are asked for, and yields each."""
    shown = printable(listing.as_posix())
    for where, entry in _entries(listing.suffix, data, shown):
        name = _file_name(entry)
        if name is None or name not in entry:
            columns = ", ".join(printable(str(key)) for key in entry)
            raise ValueError(f"{where} has no file_name; it has {columns or 'nothing'}")
        if not isinstance(entry[name], str):
            raise ValueError(f"{where} must have texts as file_name and caption")
        image = _found(listing.parent, entry[name], images)
        if image is None:
            raise ValueError(
                f"{where} names {printable(entry[name])!r}, which is not there as an image; every "
                "caption needs its image"
            )
        if image in found:
            raise ValueError(
                f"{where} names {printable(entry[name])} a second time; every image has one caption"
            )
        found[image] = caption_of(entry, where)
        yield found[image] or ""


def sidecar_text(data: bytes, name: str) -> str:
    r"""Returns the caption that a text file holds, without white space around it; `\r\n` in it is
    `\n`."""
    return text_of(data, name).replace("\r\n", "\n").replace("\r", "\n").strip()


def _found(
    folder: PurePosixPath, name: str, images: Collection[PurePosixPath]
) -> PurePosixPath | None:
    """The image of a name, which may be written with Windows' separators."""
    places = (folder / name, folder / name.replace("\\", "/"))
    return next((place for place in places if place in images), None)


def _file_name(entry: Mapping[str, Any]) -> str | None:
    """The column of file names: `file_name`, or the only one that ends so, or the image's."""
    ending = [key for key in entry if isinstance(key, str) and key.endswith(f"_{FILE_NAME}")]
    for name in (FILE_NAME, f"image_{FILE_NAME}"):
        if name in entry:
            return name
    return ending[0] if len(ending) == 1 else None


def _entries(suffix: str, data: bytes, shown: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if suffix == ".jsonl":
        return _json_entries(data, shown)
    return _csv_entries(data, shown) if suffix == ".csv" else _parquet_entries(data, shown)


def _json_entries(data: bytes, shown: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(lines_of(data, shown), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {shown}"
        entry = json_entry(line, where, NO_ENTRY)
        if entry is None or _file_name(entry) is None:
            raise ValueError(f"{where} {NO_ENTRY}")
        yield where, entry


def json_entry(line: str, where: str, wrong: str = "is not JSON") -> dict[str, Any] | None:
    """Returns the object of one line of JSON; None if it is something else.

    Raises:
        ValueError: If it is no JSON, or has a caption or a name of a file twice.
    """

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # The outermost comes last, and is the one that counts.
        doubled[:] = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]
        return dict(pairs)

    doubled: list[str] = []
    try:
        entry = json.loads(line, object_pairs_hook=made)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise ValueError(f"{where} {wrong}: {reason}") from error
    if not isinstance(entry, dict):
        return None
    _require_once(doubled, where)
    return entry


def _require_once(doubled: Iterable[str], where: str) -> None:
    for key in doubled:
        if key in CAPTION_KEYS or key.endswith(FILE_NAME):
            raise ValueError(f"{where} has {printable(key)} twice; it must have it once")


def _csv_entries(data: bytes, shown: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All values are text as they stand (`NA` and `007` too); an empty one is null."""
    reader = csv.reader(rows_of(data, shown), strict=True)
    names: list[str] | None = None
    begin = 1
    try:
        for row in reader:
            where = f"line {reader.line_num} of {shown}"
            if names is None and row:
                names = row
                _require_once([n for n, k in Counter(names).items() if k > 1], where)
            elif names is not None and row:
                if len(row) > len(names):
                    raise ValueError(
                        f"{where} has more fields than the first line; text with commas needs "
                        "quotes"
                    )
                given = [value or None for value in row] + [None] * (len(names) - len(row))
                yield where, dict(zip(names, given, strict=True))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"line {begin} of {shown} is no CSV: {error}; every quote that opens must close"
        ) from error


def _parquet_entries(data: bytes, shown: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        claims = page_claims(io.BytesIO(data))
        if claims.n_unpacked > MOST_TEXT:
            raise ValueError(f"it unpacks to over {MOST_TEXT} bytes")
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            _require_once([name for name, n in Counter(names).items() if n > 1], "it")
            wanted = [n for n in names if n in CAPTION_KEYS or n.endswith(FILE_NAME)]
            rows = max(1, min(ROWS_AT_ONCE, PIECE // max(1, claims.largest)))
            if file.metadata.num_rows > MOST_FILES:
                raise ValueError(f"it has over {MOST_FILES} rows")
            number = size = 0
            for batch in file.iter_batches(batch_size=rows, columns=wanted):
                size += batch.nbytes
                if size > MOST_TEXT:
                    raise ValueError(f"it unpacks to over {MOST_TEXT} bytes")
                batch.validate(full=True)
                for entry in batch.to_pylist():
                    yield f"row {number} of {shown}", entry
                    number += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{shown} cannot be read as a table: {reason}") from error
