"""Tables with an image column: a Parquet file, and data sets of the Hugging Face `datasets`
library, from the hub or from disk. None of them runs code: the library knows no scripts any more.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ddim_core.common.digest import digest, file_digest
from ddim_core.common.plain_files import is_there, require_plain_tree, walk
from ddim_core.common.printable import printable
from ddim_core.images.sources.captions import CAPTION_KEYS, METADATA, caption_of
from ddim_core.images.sources.columns import (
    caption_columns,
    columns_left_out,
    image_column,
    label_column,
    require_once,
    require_short,
)
from ddim_core.images.sources.file_tree import FolderTree, licence_of, read_regular
from ddim_core.images.sources.folder import is_image
from ddim_core.images.sources.saved_folder import require_plain_folder, require_tables
from ddim_core.images.sources.source import ALL, Row, named
from ddim_core.images.sources.table_file import ROWS_AT_ONCE, schema_of, sound, table_of

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
SAVED_TO_DISK = frozenset({"dataset_dict.json", "state.json"})
TABLES = frozenset({".parquet", ".arrow"})
KNOWN_SUFFIXES = TABLES | {".json", ".md"}  # of a folder that `datasets` wrote
MOST_CLASSES = 10_000
SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True, eq=False)
class TableSource:
    """A data set whose splits are tables.

    Attributes:
        name, licence, splits: As of every source.
        identity: What `content` returns.
        schema: Of every table, as `datasets` writes it: images are structs of `bytes` and `path`.
        load: Reads the table of one split.
        roots: Where image files may lie that a table names instead of holding their bytes.
        beside: What lies beside the tables and is left out, in sentences.
    """

    name: str
    licence: str
    splits: tuple[str, ...]
    identity: str
    schema: pa.Schema
    load: Callable[[str], pa.Table]
    roots: tuple[Path, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        has_labels = self._label_column() is not None
        return (*self.beside, *columns_left_out(self.schema, has_labels))

    @property
    def lacks_captions(self) -> str:
        """Why no row has a caption, for people; "" if rows have them."""
        if caption_columns(self.schema):
            return ""
        left_out = "".join(f"; {told}" for told in columns_left_out(self.schema, True))
        return f"{self.name} has no texts in a column {', '.join(CAPTION_KEYS)}{left_out}"

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names of the label column's feature, or else its values."""
        column = self._label_column()
        if column is None:
            return ()
        named = getattr(self._features.get(column), "names", None)
        if named:
            return tuple(printable(str(name)) for name in named)
        values = {v for split in self.splits for v in self.load(split)[column].unique().to_pylist()}
        values = {int(v) if isinstance(v, bool) else v for v in values}
        values -= {None, -1}  # which the hub writes where a test split hides its labels
        if all(isinstance(value, int) for value in values):
            if values and not 0 <= min(values) <= max(values) < MOST_CLASSES:
                raise ValueError(
                    f"{self.name} has labels from {min(values)} to {max(values)}; they must lie in "
                    f"0..{MOST_CLASSES - 1}"
                )
            return tuple(str(i) for i in range(max(values, default=-1) + 1))
        return tuple(sorted(printable(str(value)) for value in values))

    def content(self) -> str:
        return self.identity

    def rows(self, split: str) -> Iterator[Row]:
        for name in self.splits if split == ALL else (split,):
            yield from self._rows(name, self.load(name))

    def _rows(self, split: str, table: pa.Table) -> Iterator[Row]:
        image, label = image_column(self.schema, self.name), self._label_column()
        captions = caption_columns(self.schema)
        wanted = dict.fromkeys([image, *([label] if label else []), *captions])
        stem = self.name if len(self.splits) == 1 else f"{self.name}-{split}"
        number = 0
        chosen = table.select(list(wanted))
        require_short(chosen, self.name)
        for batch in chosen.to_batches(max_chunksize=ROWS_AT_ONCE):
            for cells in batch.to_pylist():
                where = f"row {number} of {self.name} {split}"
                yield Row(
                    where,
                    partial(_bytes_of, cells[image], self.roots),
                    self._class_of(where, cells[label]) if label else None,
                    self._caption_of(where, cells) if captions else None,
                    f"{stem}-{number:06d}",
                )
                number += 1

    def _class_of(self, where: str, value: Any) -> str | None:
        if value is None or value == -1:
            return None
        if isinstance(value, int):
            if not 0 <= value < len(self.class_names):
                raise ValueError(
                    f"{where} has label {int(value)}; there are {len(self.class_names)} classes, "
                    f"0..{len(self.class_names) - 1}, and -1 where labels are hidden"
                )
            return self.class_names[value]
        return printable(str(value))

    def _caption_of(self, where: str, cells: Mapping[str, Any]) -> str:
        value = caption_of(cells, where)
        if value is None:
            raise ValueError(f"{where} has no caption; give all images one, or none")
        return value

    @cached_property
    def _features(self) -> Mapping[str, Any]:
        if b"huggingface" not in (self.schema.metadata or {}):
            return {}
        from datasets import Features  # slow to import

        try:
            features: Mapping[str, Any] = Features.from_arrow_schema(self.schema)
        except (
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            RecursionError,
            NotImplementedError,
        ) as error:
            raise ValueError(f"{self.name} describes its columns wrongly: {error}") from error
        return features

    def _label_column(self) -> str | None:
        named = [k for k, feature in self._features.items() if hasattr(feature, "names")]
        return named[0] if len(named) == 1 else label_column(self.schema)


def is_table(path: Path) -> bool:
    """Tells by its name whether a file is a table."""
    return path.suffix.lower() in TABLES


def file_source(path: Path) -> TableSource:
    """Opens a Parquet or Arrow file; its splits are `all` and its own stem, less what the hub
    appends (`train-00000-of-00001` is `train`).

    Raises:
        ValueError: If it is damaged.
    """
    schema = sound(path, schema_of)
    require_once(schema, printable(path.name))
    return TableSource(
        name=printable(path.stem),
        licence="",
        splits=(SHARD.sub("", printable(path.stem)),),
        identity=file_digest(path),
        schema=schema,
        load=lambda _: sound(path, table_of),
    )


def is_saved_dataset(folder: Path) -> bool:
    """Tells a folder of `datasets` (saved to disk, or of Parquet or Arrow files) from others."""
    return is_saved_to_disk(folder) or bool(tables_below(folder))


def is_saved_to_disk(folder: Path) -> bool:
    """Tells a folder that `save_to_disk` wrote."""
    return any(is_there(folder / name) for name in SAVED_TO_DISK)


def tables_below(folder: Path) -> list[Path]:
    """Returns the tables of a folder, relative, by name; what `metadata.parquet` has beside images
    are captions, and no table of images."""
    files = walk(folder)
    metadata = METADATA if any(is_image(file) for file in files) else ()
    return [f for f in files if f.suffix.lower() in TABLES and f.name not in metadata]


def saved_source(folder: Path) -> TableSource:
    """Opens a local folder that `datasets` reads; nothing is left in its cache.

    Raises:
        ValueError: If it cannot.
    """
    try:
        require_plain_tree(folder)
    except ValueError as error:
        raise _refusal(printable(folder.name), error) from error
    return _saved_source(
        folder, digest([[f.as_posix(), file_digest(folder / f)] for f in walk(folder)])
    )


@lru_cache(maxsize=2)
def _saved_source(folder: Path, identity: str) -> TableSource:
    import datasets

    try:
        require_plain_folder(folder, lambda file: sound(file, table_of))
        if is_saved_to_disk(folder):
            loaded = datasets.load_from_disk(folder, keep_in_memory=True)
        else:
            with tempfile.TemporaryDirectory() as cache:
                builder = datasets.load_dataset_builder(str(folder), cache_dir=cache)
                _require_inside(builder.config.data_files or {}, folder)
                require_tables(builder, schema_of)
                loaded = datasets.load_dataset(str(folder), cache_dir=cache, keep_in_memory=True)
    except Exception as error:  # the readers of many formats
        raise _refusal(printable(folder.name), error) from error
    name = printable(folder.resolve().name)
    return replace(
        _table_source(name, identity, loaded, folder, licence_of(FolderTree(folder))),
        beside=notes_on_folder(folder),
    )


def notes_on_folder(folder: Path) -> tuple[str, ...]:
    """Says what lies beside the tables of a folder and is left out."""
    others = [f.as_posix() for f in walk(folder) if f.suffix.lower() not in KNOWN_SUFFIXES]
    return (f"left out because no tables ({len(others)}): {named(others)}",) if others else ()


def _require_inside(data_files: Mapping[str, Any], folder: Path) -> None:
    """A folder's card may name its files; those elsewhere are in no fingerprint of it."""
    for place in (str(file) for files in data_files.values() for file in files):
        if not Path(place).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"its card names {printable(place)!r}, a file outside of it")


@lru_cache(maxsize=4)
def hub_source(name: str) -> TableSource:
    """Downloads a data set of the Hugging Face hub, `owner/name` or `owner/name:configuration`,
    once, into the library's own cache; a private one by the token in HF_TOKEN.

    Raises:
        ValueError: If it does not exist, or the hub cannot be reached.
    """
    import datasets

    repository, _, configuration = name.partition(":")
    try:
        builder = datasets.load_dataset_builder(repository, configuration or None)
        loaded = datasets.load_dataset(repository, configuration or None)
        cache = Path(datasets.config.HF_CACHE_HOME)
    except Exception as error:  # the network, and the readers of many formats
        raise _no_hub(name, error) from error
    return _table_source(name.rsplit("/", 1)[-1], f"{name}@{builder.hash}", loaded, cache)


def _table_source(
    name: str, identity: str, loaded: Any, root: Path, licence: str = ""
) -> TableSource:
    splits = loaded if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
    first = next(iter(splits.values()))
    for split, table in splits.items():
        if set(table.features) != set(first.features):
            raise ValueError(
                f"{name} has the columns {', '.join(table.features)} in {split}, and others in "
                f"{next(iter(splits))}; all splits must have the same"
            )
    return TableSource(
        name=name,
        licence=licence or printable(first.info.license or ""),
        splits=tuple(splits),
        identity=identity,
        schema=first.features.arrow_schema,
        load=lambda split: splits[split].with_format("arrow")[:],
        roots=(root,),
    )


def _refusal(name: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    if "scripts are no longer supported" in reason:
        reason = "it is a script, and code of a data set is never run; ask for it as Parquet"
    return ValueError(f"the data set {name!r} cannot be opened: {reason}")


def _no_hub(name: str, error: Exception) -> ValueError:
    """As `_refusal`, of a name that a mistyped path may be."""
    reason = str(_refusal(name, error)).partition(" cannot be opened: ")[2]
    return ValueError(
        f"there is no file or folder {name!r} here, and as a data set of the Hugging Face hub it "
        f"cannot be opened: {reason}"
    )


def _bytes_of(cell: Any, roots: tuple[Path, ...]) -> bytes:
    """The bytes of an image cell, or of the file that it names below one of the roots."""
    if isinstance(cell, bytes):
        return cell
    if cell is None or (cell["bytes"] is None and not cell.get("path")):
        raise OSError("it holds no image bytes")
    if cell["bytes"] is not None:
        return bytes(cell["bytes"])
    path = Path(cell["path"]).resolve()
    inside = [path.relative_to(r) for root in roots if path.is_relative_to(r := root.resolve())]
    if not inside or any(part.startswith(".") for part in inside[0].parts):
        raise OSError(
            "it holds no bytes, and names a file outside of the data set, or a hidden one"
        )
    return read_regular(path)
