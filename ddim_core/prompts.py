"""Prompts by place: a text file with one a line, captions in JSON lines, or a captioned folder."""

from __future__ import annotations

import json
from pathlib import Path

CAPTIONS_NAME = "metadata.jsonl"
CAPTION_KEYS = ("text", "caption", "prompt")


def read_prompts(location: str) -> list[str]:
    """Reads prompts in their order.

    Args:
        location: A text file with one a line (empty lines do not count); a `.jsonl` file with an
            object a line that has a `text`, `caption` or `prompt`; or a folder whose
            `metadata.jsonl`, or that of its split, is one.

    Raises:
        ValueError: If it is none of these, or holds no prompt.
    """
    path = Path(location)
    listings = [path]
    if path.is_dir():
        listings = sorted(path.glob(CAPTIONS_NAME)) or sorted(path.glob(f"*/{CAPTIONS_NAME}"))
        if not listings:
            raise ValueError(f"{path.name} has no captions: no {CAPTIONS_NAME} lies in it")
    elif not path.is_file():
        raise ValueError(f"there is no file of prompts {location!r}")
    found = [prompt for listing in listings for prompt in _read(listing)]
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
