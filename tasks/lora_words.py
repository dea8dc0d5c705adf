"""Words of a prompt that the base's tokenizer does not know, said before training starts."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from ddim_core.lora_base import load_tokenizers
from ddim_core.lora_text import unknown_words_warning


@task(name="check-words")
def check_words(prompts: list[str], location: str) -> list[str]:
    """Returns one warning for each prompt with words that are not one token."""
    tokenizer = load_tokenizers(Path(location))[0]
    found = (unknown_words_warning(tokenizer, prompt) for prompt in dict.fromkeys(prompts))
    return [warning for warning in found if warning]
