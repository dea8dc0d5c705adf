"""Captioned images in: metadata.jsonl, kohya's text files, Parquet; photos of a subject.

Everything becomes one form, the folder with `metadata.jsonl` that diffusers' and Hugging Face's
loaders read: one JSON object a line with `file_name` and `text`.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
METADATA = "metadata.jsonl"
CAPTION_COLUMNS = ("text", "caption", "prompt")
CAPTION_FILES = (".txt", ".caption")
HUB_FILES = ["*.parquet", "*.jsonl", "*.txt", "*.png", "*.jpg", "*.jpeg", "*.webp"]
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L"})
SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Captioned:
    """One training image: the name of its file, its encoded bytes, its caption."""

    name: str
    data: bytes
    caption: str


def locate_data(name: str) -> Path:
    """Returns the place of captioned images: a folder, a `.parquet` file, or what a data set of
    the hub was fetched to.

    Raises:
        ValueError: If it is nowhere.
    """
    path = Path(name)
    if path.exists():
        return path
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(
            f"there is no data {name!r}; give a folder with {METADATA}, a .parquet file or a hub id"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=HUB_FILES))
    except Exception as error:  # offline, unknown, or gated: each has an exception of its own
        raise ValueError(
            f"{name!r} is no folder here and could not be fetched from the hub "
            f"({type(error).__name__}); check the name and the connection, or give a local folder"
        ) from error


def require_images(place: Path) -> None:
    """Makes sure, by names alone, that a place holds images.

    Raises:
        ValueError: If it does not.
    """
    if place.is_dir() and not any(_images(place)) and not any(place.rglob("*.parquet")):
        raise ValueError(f"{str(place)!r} holds no image; there must be at least one")


def has_captions(place: Path) -> bool:
    """Tells whether images come with captions."""
    if not place.is_dir():
        return True
    names = {path.name for path in files_below(place)}
    return METADATA in names or any(n.endswith((*CAPTION_FILES, ".parquet")) for n in names)


def read_captioned(place: Path) -> list[Captioned]:
    """Reads captioned images, sorted by file name.

    Args:
        place: A folder with `metadata.jsonl` (or with a folder `train` that has it), a folder of
            images with a `.txt` or `.caption` file beside each, a Parquet file with an image
            column and a column `text`, `caption` or `prompt`, or a folder of such files.

    Raises:
        ValueError: If there is none, if images and captions do not match, naming those, or if an
            image cannot be read.
    """
    items = sorted(_read(place), key=lambda item: item.name)
    if not items:
        raise ValueError(f"{str(place)!r} holds no captioned image; there must be at least one")
    for item in items:
        decode(item.data, item.name)
    return items


def read_photos(folder: Path, prompt: str) -> list[Captioned]:
    """Reads photos of one subject, sorted by name; the prompt is the caption of each.

    Raises:
        ValueError: If the folder is not there or holds no image, or if one cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r} of the subject's photos")
    paths = _images(folder)
    if not paths:
        raise ValueError(f"{str(folder)!r} holds no image; give 3 to 6 photos of the subject")
    items = [Captioned(p.relative_to(folder).as_posix(), p.read_bytes(), prompt) for p in paths]
    for item in items:
        decode(item.data, item.name)
    return items


def write_captioned(items: list[Captioned], folder: Path) -> None:
    """Writes images and their `metadata.jsonl`; the same items give the same bytes."""
    lines = []
    for item in items:
        path = folder / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item.data)
        lines.append(json.dumps({"file_name": item.name, "text": item.caption}) + "\n")
    (folder / METADATA).write_text("".join(lines))


def decode(data: bytes, where: str) -> Image.Image:
    """Returns an image as RGB, upright, what is transparent in it white.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.mode in DEEP_MODES:
                raise ValueError(f"{where} has mode {opened.mode}; images must have 8 bits")
            upright = ImageOps.exif_transpose(opened)
            if not upright.has_transparency_data:
                return upright.convert("RGB")
            layers = upright.convert("RGBA")
            white = Image.new("RGBA", layers.size, "white")
            return Image.alpha_composite(white, layers).convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError(f"{where} cannot be read as an image: its form is not known") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{where} cannot be read as an image: {error}") from error


def _read(place: Path) -> Iterator[Captioned]:
    if place.is_file() and place.suffix == ".parquet":
        return _from_parquet(place)
    if not place.is_dir():
        raise ValueError(f"{str(place)!r} is no folder and no .parquet file of captioned images")
    for root in (place, place / "train"):
        if (root / METADATA).is_file():
            return _from_metadata(root)
    tables = sorted(place.rglob("*.parquet"))
    if tables:
        return (item for table in tables for item in _from_parquet(table))
    return _from_caption_files(place)


def _from_metadata(folder: Path) -> Iterator[Captioned]:
    captions = dict(_lines(folder / METADATA))
    there = {path.relative_to(folder).as_posix() for path in _images(folder)}
    _must_match(
        f"{METADATA} of {folder.name}", sorted(set(captions) - there), sorted(there - set(captions))
    )
    for name, caption in captions.items():
        yield Captioned(name, (folder / name).read_bytes(), caption)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    seen = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {number} of {path.name}"
        try:
            row = json.loads(line)
            name = str(PurePosixPath(row["file_name"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{where} is not a JSON object with file_name and text") from error
        caption = next((row[c] for c in CAPTION_COLUMNS if isinstance(row.get(c), str)), None)
        if caption is None:
            raise ValueError(f"{where} has no text for {name}; every image needs a caption")
        if name in seen:
            raise ValueError(f"{where} names {name} a second time; every image has one caption")
        seen.add(name)
        yield name, caption


def _must_match(what: str, without_image: list[str], without_caption: list[str]) -> None:
    if without_image:
        raise ValueError(
            f"{what} names {_some(without_image)}, which is not there; "
            "every caption needs its image"
        )
    if without_caption:
        raise ValueError(
            f"{what} has no caption for {_some(without_caption)}; every image needs one"
        )


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _from_caption_files(folder: Path) -> Iterator[Captioned]:
    paths = _images(folder)
    if not paths:
        raise ValueError(f"{str(folder)!r} holds no image; there must be at least one")
    texts = {path: _caption_file(path) for path in paths}
    bare = [path.relative_to(folder).as_posix() for path, text in texts.items() if text is None]
    if bare:
        raise ValueError(
            f"{folder.name} has no {METADATA}, and {_some(bare)} has no .txt file beside it; "
            "every image needs a caption"
        )
    for path, text in texts.items():
        caption = text.read_text(encoding="utf-8").strip() if text else ""
        yield Captioned(path.relative_to(folder).as_posix(), path.read_bytes(), caption)


def _caption_file(image: Path) -> Path | None:
    beside = (image.with_suffix(suffix) for suffix in CAPTION_FILES)
    return next((path for path in beside if path.is_file()), None)


def _from_parquet(path: Path) -> Iterator[Captioned]:
    import pyarrow as pa  # needed for this form only
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    structs = (f for f in table.schema if pa.types.is_struct(f.type))
    images = [f.name for f in structs if f.type.get_field_index("bytes") >= 0]
    captions = [name for name in CAPTION_COLUMNS if name in table.column_names]
    if len(images) != 1 or not captions:
        raise ValueError(
            f"{path.name} has the columns {', '.join(table.column_names)}; it needs one of images "
            f"(structs with the field bytes) and one of {', '.join(CAPTION_COLUMNS)}"
        )
    cells = zip(
        table.column(images[0]).to_pylist(), table.column(captions[0]).to_pylist(), strict=True
    )
    for row, (cell, caption) in enumerate(cells):
        if cell is None or cell["bytes"] is None or not isinstance(caption, str):
            raise ValueError(f"row {row} of {path.name} lacks its image bytes or its caption")
        yield Captioned(f"{path.stem}-{row:06d}{_suffix(cell['bytes'])}", cell["bytes"], caption)


def _suffix(data: bytes) -> str:
    return ".png" if data.startswith(b"\x89PNG") else ".jpg"


def files_below(folder: Path) -> list[Path]:
    """Returns all files below a folder but hidden ones, through links too, sorted."""
    found = [Path(root, n) for root, _, names in os.walk(folder, followlinks=True) for n in names]
    visible = (p for p in found if not any(x.startswith(".") for x in p.relative_to(folder).parts))
    return sorted(visible)


def _images(folder: Path) -> list[Path]:
    return [path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
