"""The files of tokenizers, read before transformers reads them: nothing in them is absurd.

A tokenizer.json may bring its own regular expressions, and one that backtracks takes for ever on a
prompt of forty letters; so only those of well-known tokenizers are let through, and of a base only
those of CLIP's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ddim_core.common.plain_files import byte_lines, read_json

MOST_TOKENS = 2**20  # CLIP has 49,408, Gemma 262,144
LONGEST_TOKEN = 1000  # characters
CLIP_SPLIT = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
PATTERNS = frozenset({CLIP_SPLIT, CLIP_SPLIT.partition("'s")[1] + CLIP_SPLIT.partition("'s")[2]})
SPACES = frozenset({r"\s+", r"\s"})
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KNOWN = PATTERNS | SPACES | {
    r" {2,}",  # T5
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    _WORDS + r"\p{N}" + _REST,  # Qwen 2 and 3
    _WORDS + r"\p{N}{1,3}" + _REST,  # Llama 3, GLM 4
}  # fmt: skip


def require_harmless_tokenizer(folder: Path) -> None:
    """Makes sure that the files of any tokenizer or processor are of a sane size, name no code, and
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
            told = model.get("vocab") if isinstance(model, dict) else None
            _require_tokens([t[0] if isinstance(t, list) and t else t for t in told or ()], where)
            _require_patterns(content, KNOWN, "none of the well-known ones", where)


def require_plain_tokenizer(folder: Path) -> None:
    """Makes sure that a CLIP tokenizer's files are small, and bring no patterns of their own.

    Raises:
        ValueError: If they are not, with what is wrong.
        OSError: If one cannot be read.
    """
    where = f"the tokenizer of {folder.parent.name}"
    for path in sorted(folder.glob("*.json")):
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path.name} of {where} is no mapping of names")
        if path.name == "vocab.json":
            _require_tokens(list(content), where)
        elif path.name == "tokenizer.json":
            _require_clip(content.pop("model", None), content, where)
        elif "auto_map" in content:
            raise ValueError(f"{path.name} of {where} names code (auto_map), which is never run")
    merges = folder / "merges.txt"
    if merges.exists():
        _require_tokens([str(line) for line in byte_lines(merges, 2**24)], where)


def _require_clip(model: Any, rest: Any, where: str) -> None:
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        raise ValueError(f"{where} is no byte-pair encoding, as CLIP's is")
    _require_tokens(list(model.get("vocab", ())), where)
    _require_patterns(rest, PATTERNS | SPACES, "not CLIP's", where)


def _require_patterns(told: Any, known: Collection[str], what: str, where: str) -> None:
    for pattern in _patterns(told):
        if pattern not in known:
            raise ValueError(
                f"{where} splits by the pattern {pattern[:80]!r}, which is {what}; it may take for "
                "ever"
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


def _require_tokens(tokens: list[Any], where: str) -> None:
    longest = max((len(str(token)) for token in tokens), default=0)
    if len(tokens) > MOST_TOKENS or longest > LONGEST_TOKEN:
        raise ValueError(
            f"{where} has {len(tokens)} tokens, the longest of {longest} characters; at most "
            f"{MOST_TOKENS} of {LONGEST_TOKEN} are read"
        )
