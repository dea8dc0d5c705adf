"""Prompts to token numbers and embeddings, once; and words that a tokenizer does not know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import punctuation
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.text2image.base_folder import load_text_encoders, load_tokenizers

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
        `ids` int64 [n, tokens], and `ids_2` of a second tokenizer; `states` float32 [n, tokens, d];
        `pooled` float32 [n, d_2] for SDXL.
    """
    tokenizers, encoders = load_tokenizers(base), load_text_encoders(base)
    ids = [torch.stack([token_ids(t, prompt) for prompt in prompts]) for t in tokenizers]
    n, size = len(prompts), 1 if device == "cpu" else BATCH_ON_CARD
    whole = [torch.cat([x, x[:1].expand(-n % size, -1)]) for x in ids]
    with torch.inference_mode():
        for encoder in encoders:
            encoder.to(device)
        rows = [
            encode(encoders, [numbers[i : i + size].to(device) for numbers in whole])
            for i in range(0, n, size)
        ]
    arrays = {"states": torch.cat([states for states, _ in rows])[:n].float().cpu().numpy()}
    arrays |= {name: n.numpy() for name, n in zip(("ids", "ids_2"), ids, strict=False)}
    pooled = [vector for _, vector in rows if vector is not None]
    return arrays | ({"pooled": torch.cat(pooled)[:n].float().cpu().numpy()} if pooled else {})


def token_ids(tokenizer: Any, prompt: str) -> Tensor:
    """Returns a prompt's token numbers [tokens], padded to the length that the encoder reads."""
    encoded = tokenizer(
        prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )  # fmt: skip
    return encoded.input_ids[0]


def encode(encoders: Sequence[Any], ids: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Returns the states [n, tokens, d] that the U-Net attends to, and SDXL's pooled vector.

    SD 1.x and 2.x take the last layer's states; SDXL those before the last layer of both encoders,
    side by side, and the second encoder's projected vector.
    """
    if len(encoders) == 1:
        return encoders[0](ids[0], return_dict=False)[0], None
    outputs = [e(n, output_hidden_states=True) for e, n in zip(encoders, ids, strict=True)]
    states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return states, outputs[1][0]


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
