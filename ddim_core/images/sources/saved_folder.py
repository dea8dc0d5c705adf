"""A folder of the `datasets` library, looked through before that library opens it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ddim_core.common.plain_files import MOST_JSON, parse_json, read_bytes, require_plain_tree, walk
from ddim_core.common.printable import printable
from ddim_core.safe_files.contained import (
    ADDRESS,
    contained,
    require_plain_name,
    require_plain_path,
)
from ddim_core.safe_files.settings import parse_yaml

TABLES = frozenset({".parquet", ".arrow"})
DESCRIPTIONS = frozenset(
    {"dataset_dict.json", "state.json", "dataset_info.json", "dataset_infos.json"}
)
SPLITS, STATE = "dataset_dict.json", "state.json"
CARD = "README.md"
CARD_OF_OLD = ".huggingface.yaml"  # read in its place, and hidden from every fingerprint
NAMING = ("data_files", "data_dir")  # of a card's configurations
# What `datasets` would unpack, without an end that its length tells.
PACKED = frozenset({".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z", ".rar", ".tar", ".tgz"})


def require_plain_folder(folder: Path, check_table: Callable[[Path], pa.Table]) -> None:
    """Makes sure of all that `datasets` would open in a folder before it does: the card and the
    JSON files that it parses, and every table; nothing else may be unpacked.

    Args:
        folder: Of the data set.
        check_table: Reads a table; raises ValueError for one that lies or is damaged.

    Raises:
        ValueError: With what is wrong.
    """
    require_plain_beside(folder)
    for file in walk(folder):
        if file.suffix in TABLES:
            _require_own_images(check_table(folder / file), folder, printable(file.as_posix()))


def require_plain_beside(folder: Path) -> None:
    """Makes sure of what lies beside tables: no pipe or circle, nothing packed, no card or
    description that names what is elsewhere.

    Raises:
        ValueError: With what is wrong.
    """
    require_plain_tree(folder)
    if (folder / CARD_OF_OLD).exists():
        raise ValueError(f"it holds {CARD_OF_OLD}, which no fingerprint sees; use {CARD}")
    for file in walk(folder):
        if file.name == CARD:
            card = front_matter(folder / file)
            if file.parent == Path():
                require_own_files(card)
        elif file.name in DESCRIPTIONS:
            told = parse_json(read_bytes(folder / file, MOST_JSON), printable(file.as_posix()))
            _require_own_parts(folder / file, told)
        elif file.suffix.lower() in PACKED:
            raise ValueError(f"it holds {printable(file.as_posix())!r}; unpack it first")


def front_matter(card: Path) -> Any:
    """Returns what a data card says before its text; None if it says nothing there.

    Raises:
        ValueError: If that is no plain YAML.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK  # what `datasets` goes by

    found = REGEX_YAML_BLOCK.search(read_bytes(card, MOST_JSON).decode("utf-8", "replace"))
    return parse_yaml(found[2], printable(card.name)) if found else None


def require_own_files(card: Any) -> None:
    """Makes sure that a card names files of its own folder alone: of an address, a request would
    be made before anything is refused, and files elsewhere are in no fingerprint.

    Raises:
        ValueError: If it names anything else.
    """
    for key, name in _texts(card):
        if key in NAMING:
            _require_seen(name, f"in {CARD} the {key} entry")


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The texts in nested settings, each with the outermost key of `NAMING` that it stands under,
    or else its own."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            below = key if key in NAMING else str(name)
            # A part of a list of files is {split, path}: the name of a split is no path.
            yield from _texts(item, "split" if name == "split" and key in NAMING else below)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, key)


def _require_own_parts(description: Path, told: Any) -> None:
    """The parts that `save_to_disk` names: splits in folders, tables beside what describes them."""
    if not isinstance(told, dict):
        return
    where = f"in {description.name} the name"
    if description.name == SPLITS:
        for name in told.get("splits") or []:
            _require_seen(require_plain_name(name, where), where)
            contained(description.parent, name, where)
    if description.name == STATE:
        for entry in told.get("_data_files") or []:
            name = entry.get("filename") if isinstance(entry, dict) else entry
            _require_seen(name, where)
            contained(description.parent, name, where)


def _require_seen(name: Any, what: str) -> None:
    """A plain path, and no hidden one, which a fingerprint passes over."""
    parts = require_plain_path(name, what).split("/")
    if any(part.startswith(".") and part != "." for part in parts):
        raise ValueError(f"{what} {printable(name)!r} is hidden, and no fingerprint sees it")


def require_tables(builder: Any, schema_of: Callable[[Path], pa.Schema]) -> None:
    """Makes sure that `datasets` takes a folder for tables, and none of their texts for places of
    images: it would read these wherever they are, on the network too.

    Raises:
        ValueError: If it does not, and with the column.
    """
    from datasets import Features  # slow to import

    kind = type(builder).__module__.rsplit(".", 1)[-1]
    if kind not in ("parquet", "arrow"):
        raise ValueError(f"it holds more {kind} files than tables; only .parquet and .arrow count")
    for place in (Path(str(f)) for files in builder.config.data_files.values() for f in files):
        schema = schema_of(place)
        read = builder.info.features or Features.from_arrow_schema(schema)
        for name, feature in read.items():
            held = schema.field(name).type if name in schema.names else pa.null()
            texts = pa.types.is_string(held) or pa.types.is_large_string(held)
            if texts and hasattr(feature, "embed_storage"):
                raise ValueError(
                    f"the column {printable(name)!r} of {printable(place.name)} is said to be "
                    "images and holds texts; it must hold their bytes"
                )


def _require_own_images(table: pa.Table, folder: Path, where: str) -> None:
    """`datasets` reads what a cell without bytes names, before anybody sees it."""
    for column in table.columns:
        for paths in _paths(column.combine_chunks()):
            for path in paths.unique().to_pylist():
                if path is not None:
                    _require_own_image(path, folder, where)


def _require_own_image(path: str, folder: Path, where: str) -> None:
    root = folder.resolve()
    try:
        place = Path(path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where} names an image {printable(path)[:100]!r}: {error}") from error
    inside = place.is_relative_to(root) and not ADDRESS.search(path)
    if not inside or any(part.startswith(".") for part in place.relative_to(root).parts):
        raise ValueError(
            f"{where} names an image {printable(path)[:100]!r}, a hidden file, or one outside of "
            "the data set"
        )


def _paths(array: Any) -> Iterator[Any]:
    """The places in structs of `bytes` and `path` that have no bytes, however deep."""
    kind = array.type
    if isinstance(array, pa.ChunkedArray):
        for chunk in array.chunks:
            yield from _paths(chunk)
    elif pa.types.is_struct(kind):
        names = [field.name for field in kind]
        if {"bytes", "path"} <= set(names):
            yield array.field("path").filter(pc.is_null(array.field("bytes")))
        else:
            for i in range(kind.num_fields):
                yield from _paths(array.field(i))
    elif (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        yield from _paths(array.flatten())
