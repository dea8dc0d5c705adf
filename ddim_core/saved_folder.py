"""A folder of the `datasets` library, looked through before that library opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ddim_core.plain_files import MOST_JSON, parse_json, read_bytes, require_plain_tree, walk
from ddim_core.settings import parse_yaml
from ddim_core.sources import printable

TABLES = frozenset({".parquet", ".arrow"})
DESCRIPTIONS = frozenset(
    {"dataset_dict.json", "state.json", "dataset_info.json", "dataset_infos.json"}
)
CARD = "README.md"
# What `datasets` would unpack, without an end that its length tells.
PACKED = frozenset({".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".7z", ".rar", ".tar", ".tgz"})


def require_plain_folder(folder: Path, check_table: Callable[[Path], object]) -> None:
    """Makes sure of all that `datasets` would open in a folder before it does: the card and the
    JSON files that it parses, and every table; nothing else may be unpacked.

    Args:
        folder: Of the data set.
        check_table: Raises ValueError for a table that lies or is damaged.

    Raises:
        ValueError: With what is wrong.
    """
    require_plain_tree(folder)
    for file in walk(folder):
        if file.name == CARD:
            text = read_bytes(folder / file).decode("utf-8", "replace")
            if text.startswith("---"):
                parse_yaml(text[3:].split("\n---", 1)[0], printable(file.as_posix()))
        elif file.name in DESCRIPTIONS:
            parse_json(read_bytes(folder / file, MOST_JSON), printable(file.as_posix()))
        elif file.suffix in TABLES:
            check_table(folder / file)
        elif file.suffix.lower() in PACKED:
            raise ValueError(f"it holds {printable(file.as_posix())!r}; unpack it first")
