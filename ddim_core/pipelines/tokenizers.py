"""The files of any tokenizer, read before transformers reads them: nothing in them is absurd.

A tokenizer.json may bring regular expressions, and one that backtracks takes for ever on a short
prompt; so only those of well-known tokenizers are let through.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddim_core.common.plain_files import read_json
from ddim_core.safe_files.tokenizer_files import PATTERNS, SPACES

MOST_TOKENS = 2**20
LONGEST_TOKEN = 1000  # characters
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KNOWN = PATTERNS | SPACES | {
    r" {2,}",  # T5
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    _WORDS + r"\p{N}" + _REST,  # Qwen 2 and 3
    _WORDS + r"\p{N}{1,3}" + _REST,  # Llama 3, GLM 4
}  # fmt: skip


def require_harmless_tokenizer(folder: Path) -> None:
    """Makes sure that the files of a tokenizer or processor are of a sane size, name no code, and
    bring no patterns of their own.

    Raises:
        ValueError: If they are not, with what is wrong.
        OSError: If one cannot be read.
    """
    where = f"the {folder.name}"
    for path in sorted(folder.glob("*.json")):
        content = read_json(path)
        if isinstance(content, dict) and "auto_map" in content:
            raise ValueError(f"{path.name} of {where} names code (auto_map), which is never run")
        if path.name == "tokenizer.json" and isinstance(content, dict):
            model = content.pop("model", None)
            _require_tokens(model.get("vocab") if isinstance(model, dict) else None, where)
            for pattern in _patterns(content):
                if pattern not in KNOWN:
                    raise ValueError(
                        f"{where} splits by the pattern {pattern[:80]!r}, which is none of the "
                        "well-known ones; it may take for ever"
                    )


def _require_tokens(vocabulary: Any, where: str) -> None:
    tokens = [t[0] if isinstance(t, list) and t else t for t in vocabulary or ()]
    longest = max((len(str(token)) for token in tokens), default=0)
    if len(tokens) > MOST_TOKENS or longest > LONGEST_TOKEN:
        raise ValueError(
            f"{where} has {len(tokens)} tokens, the longest of {longest} characters; at most "
            f"{MOST_TOKENS} of {LONGEST_TOKEN} are read"
        )


def _patterns(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if isinstance(item.get("Regex"), str):
                yield item["Regex"]
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
