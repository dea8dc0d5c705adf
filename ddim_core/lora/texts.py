"""Prompts to token numbers and embeddings, once; and words that a tokenizer does not know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import punctuation
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.lora.recipes import recipe_of
from ddim_core.text2image.base_folder import load_t5, load_text_encoders, load_tokenizers

EMPTY = ""
BATCH_ON_CARD = 64


def distinct_prompts(captions: Sequence[str]) -> list[str]:
    """Returns the empty prompt, which caption dropout needs, and each caption once, in order."""
    return list(dict.fromkeys([EMPTY, *captions]))


def embed_prompts(
    base: Path, prompts: Sequence[str], device: str = "cpu"
) -> dict[str, NDArray[Any]]:
    """Tokenizes and embeds prompts as the base's pipeline does.

    Each prompt is embedded by itself, on a card in batches of one size, so that no embedding
    depends on its neighbours.

    Args:
        base: The base's folder.
        prompts: n texts; what is longer than the text encoder reads is cut.
        device: The CPU, or a card.

    Returns:
        `ids` int64 [n, tokens], and `ids_2` of a second CLIP; `states` float32 [n, tokens, d];
        `pooled` float32 [n, d_2] but for SD 1.x and 2.x; `n_t5` [1], how many of the tokens are
        T5's, the last ones, where there is one.
    """
    tokenizers, encoders, t5 = load_tokenizers(base), load_text_encoders(base), load_t5(base)
    encode = recipe_of(base).encode
    ids = [torch.stack([token_ids(t, prompt) for prompt in prompts]) for t in tokenizers]
    n, size = len(prompts), 1 if device == "cpu" else BATCH_ON_CARD
    whole = [torch.cat([x, x[:1].expand(-n % size, -1)]) for x in ids]
    with torch.inference_mode():
        for encoder in (*encoders, *([] if t5 is None else [t5])):
            encoder.to(device)

        def encoded(i: int) -> tuple[Tensor, Tensor | None]:
            here = [numbers[i : i + size].to(device) for numbers in whole]
            last = None if t5 is None else t5(here[-1])[0]
            return encode(encoders, here[: len(encoders)], last)

        rows = [encoded(i) for i in range(0, n, size)]
    arrays = {"states": torch.cat([states for states, _ in rows])[:n].float().cpu().numpy()}
    clip = zip(("ids", "ids_2"), ids[: len(encoders)], strict=False)
    arrays |= {name: numbers.numpy() for name, numbers in clip}
    if t5 is not None:
        arrays["n_t5"] = np.array([ids[-1].shape[1]])
    pooled = [vector for _, vector in rows if vector is not None]
    return arrays | ({"pooled": torch.cat(pooled)[:n].float().cpu().numpy()} if pooled else {})


def token_ids(tokenizer: Any, prompt: str) -> Tensor:
    """Returns a prompt's token numbers [tokens], padded to the length that the encoder reads."""
    encoded = tokenizer(
        prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )  # fmt: skip
    return encoded.input_ids[0]


def unknown_words(tokenizer: Any, prompts: Sequence[str]) -> dict[str, list[str]]:
    """Returns the words of prompts that are not one token, each with the tokens it becomes.

    Punctuation around a word is no part of it.
    """
    words = dict.fromkeys(w.strip(punctuation) for prompt in prompts for w in prompt.split())
    pieces = {word: tokenizer.tokenize(word) for word in words if word}
    return {
        word: tokens
        for word, tokens in pieces.items()
        if len(tokens) != 1 or tokens[0] == tokenizer.unk_token
    }


def unknown_words_warning(tokenizer: Any, prompts: Sequence[str]) -> str | None:
    """Says in a sentence which words of prompts the tokenizer does not know, if any."""
    unknown = unknown_words(tokenizer, prompts)
    if not unknown:
        return None
    parts = (f"{word!r} becomes {' + '.join(ts) or 'nothing'}" for word, ts in unknown.items())
    return (
        f"the tokenizer does not know every word of the prompts as one token: {'; '.join(parts)}; "
        "training still works, but a rare word that is one token is learnt faster and leaks less"
    )
