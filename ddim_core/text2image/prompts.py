"""Prompts by place: a text file with one a line, or captions in JSON lines."""

from __future__ import annotations

from pathlib import Path

from ddim_core.common.plain_files import MOST_TEXT, is_there, read_bytes
from ddim_core.images.sources.captions import CAPTION_KEYS, caption_of, json_entry
from ddim_core.safe_files.texts import bounded, lines_of


def read_prompts(location: str) -> list[str]:
    """Reads prompts in their order.

    Args:
        location: A UTF-8 text file with one a line (empty lines do not count), or a `.jsonl` file
            with an object a line that has a `text`, `caption` or `prompt`.

    Raises:
        ValueError: If it is neither, or holds no prompt.
    """
    path = Path(location)
    if not is_there(path):
        raise ValueError(f"there is no file of prompts {location!r}")
    found = _read(path)
    if not found:
        raise ValueError(f"{path.name} holds no prompt; there must be at least one")
    return found


def _read(path: Path) -> list[str]:
    try:
        data = read_bytes(path, MOST_TEXT)
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror or error}") from error
    lines = (line.strip() for line in lines_of(data, path.name))
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line)
    if path.suffix.lower() != ".jsonl":
        return list(bounded((line for _, line in numbered), path.name))
    texts = (_caption(line, f"line {number} of {path.name}") for number, line in numbered)
    return list(bounded(texts, path.name))


def _caption(line: str, where: str) -> str:
    entry = json_entry(line, where)
    text = None if entry is None else caption_of(entry, where)
    if text is None:
        raise ValueError(f"{where} has no text among {', '.join(CAPTION_KEYS)}")
    return text
