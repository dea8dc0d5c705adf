"""Prompts by place: a text file with one a line, or captions in JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

CAPTION_KEYS = ("text", "caption", "prompt")


def read_prompts(location: str) -> list[str]:
    """Reads prompts in their order.

    Args:
        location: A text file with one a line (empty lines do not count), or a `.jsonl` file with
            an object a line that has a `text`, `caption` or `prompt`.

    Raises:
        ValueError: If it is neither, or holds no prompt.
    """
    path = Path(location)
    if not path.is_file():
        raise ValueError(f"there is no file of prompts {location!r}")
    found = _read(path)
    if not found:
        raise ValueError(f"{path.name} holds no prompt; there must be at least one")
    return found


def _read(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path.name} is no UTF-8 text: {error}") from error
    lines = [line for line in lines if line]
    if path.suffix != ".jsonl":
        return lines
    return [_caption(line, f"line {i + 1} of {path.name}") for i, line in enumerate(lines)]


def _caption(line: str, where: str) -> str:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    texts = [entry[key] for key in CAPTION_KEYS if key in entry] if isinstance(entry, dict) else []
    if not texts or not isinstance(texts[0], str):
        raise ValueError(f"{where} has no text among {', '.join(CAPTION_KEYS)}")
    return texts[0]
