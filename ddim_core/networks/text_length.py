"""How long a text may be for a text encoder, and which texts are longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def fit_length(tokenizer: Any, longest: int) -> Any:
    """Sets a tokenizer's length to its encoder's where it has none, or a larger one.

    Args:
        tokenizer: Of transformers, which says 1e30 where nothing is set.
        longest: The encoder's max_position_embeddings.
    """
    length = tokenizer.model_max_length
    if not isinstance(length, (int, float)) or not 1 <= length <= longest:
        tokenizer.model_max_length = longest
    return tokenizer


def too_long(tokenizers: Sequence[Any], prompts: Sequence[str]) -> int:
    """Returns how many of the distinct prompts have more tokens than a tokenizer's length."""
    distinct = list(dict.fromkeys(prompts))
    cut: set[int] = set()
    for tokenizer in tokenizers:
        numbers = tokenizer(distinct, truncation=False, verbose=False).input_ids if distinct else []
        cut |= {i for i, ids in enumerate(numbers) if len(ids) > tokenizer.model_max_length}
    return len(cut)


def length_warning(tokenizers: Sequence[Any], prompts: Sequence[str]) -> str | None:
    """Says in a sentence how many prompts are cut, and where; None if none is."""
    n_cut = too_long(tokenizers, prompts)
    if not n_cut:
        return None
    length = min(int(tokenizer.model_max_length) for tokenizer in tokenizers)
    return (
        f"{n_cut} of {len(dict.fromkeys(prompts))} captions or prompts are longer than the "
        f"{length} tokens that the text encoder reads, start and end counted: the rest of them is "
        "cut off"
    )
