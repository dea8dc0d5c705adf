"""Which prompts a grid's images are drawn for."""

from __future__ import annotations

from ddim_core.checkpoints.conditioning import require_prompts
from ddim_core.networks.text_length import length_warning
from ddim_core.text2image.prompts import read_prompts
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.images.prepare import prepared
from tasks.images.stored_prompts import store_prompts, stored_prompts
from tasks.storage.store import ArtifactRef


def prompts_for(with_prompts: bool, location: str, reference: ArtifactRef) -> str | None:
    """Stores the prompts of a checkpoint's images; returns the list's digest, None if it has none.

    Args:
        with_prompts: Whether the checkpoint is told of a text.
        location: As of `read_prompts`; empty takes the captions of the real images.
        reference: The real images, prepared.

    Raises:
        ValueError: If there are none, or the checkpoint wants none.
    """
    prompts: list[str] = []
    if location:
        prompts = read_prompts(location)
    elif with_prompts:
        prompts = list(prepared(reference).captions or ())
    require_prompts(with_prompts, len(prompts))
    return store_prompts(prompts) if prompts else None


def cut_prompts(checkpoint: ArtifactRef, prompts: str) -> str | None:
    """Says how many of a stored list of prompts a checkpoint's text encoder does not read whole."""
    encoder = checkpoint_in_memory(checkpoint).prompts
    return length_warning([encoder.tokenizer], stored_prompts(prompts)) if encoder else None
