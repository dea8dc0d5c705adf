"""What the base's tokenizer does not know or cuts off, said before the work starts."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from ddim_core.lora.texts import unknown_words_warning
from ddim_core.networks.text_length import length_warning
from ddim_core.text2image.base_folder import load_tokenizers
from tasks.storage.naming import run_name


@task(name="check-words", task_run_name=run_name("check-words"))
def check_words(prompts: list[str], location: str) -> str | None:
    """Returns a warning that names the words that are not one token, or None."""
    tokenizer = load_tokenizers(Path(location))[0]
    return unknown_words_warning(tokenizer, prompts)


@task(name="check-length")
def check_length(prompts: list[str], location: str) -> str | None:
    """Returns a warning that says how many prompts are cut, or None."""
    return length_warning(load_tokenizers(Path(location)), prompts)
