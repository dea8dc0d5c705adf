"""A prompt's tokenizer from a folder, checked before any library opens it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def tokenizer_of(
    kind: Any, check: Callable[[Path], None], folder: Path, vocabulary: int, what: str, right: str
) -> Any:
    """Opens a tokenizer of transformers.

    Args:
        kind: Its class.
        check: Refuses a folder whose tokenizer would do more than it should.
        folder: With its files.
        vocabulary: Tokens that the network knows.
        what: The score, for messages.
        right: The tokenizer that it should be, for messages.

    Raises:
        ValueError: If there is no such tokenizer, or it has tokens that the network does not know.
    """
    try:
        check(folder)
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"the tokenizer of {what} cannot be opened: {error}") from error
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"the tokenizer of {what} has {len(tokenizer)} tokens, and its network knows "
            f"{vocabulary}; give {right}"
        )
    return tokenizer
