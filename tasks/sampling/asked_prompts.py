"""The prompts of a grid's images for whoever judges them; apart from what draws, whose cache keys
are of its code."""

from __future__ import annotations

import safetensors.torch

from tasks.images.stored_prompts import KIND as PROMPTS
from tasks.images.stored_prompts import stored_prompts
from tasks.sampling.conditions import KIND
from tasks.storage import store
from tasks.storage.store import ArtifactRef


def texts_of(prompts: str | None, encoded: bool) -> tuple[ArtifactRef | None, int | None]:
    """Returns the stored list of prompts that images are drawn for, None where they are encoded
    alone, and how many there are, None where there are none.

    Args:
        prompts: The digest of the list, or of what somebody encoded prompts to.
        encoded: Which of the two it is.
    """
    if prompts is None:
        return None, None
    if encoded:
        given = safetensors.torch.load(store.get(ArtifactRef(prompts, KIND)))
        return None, max(len(value) for value in given.values())
    return ArtifactRef(prompts, PROMPTS), len(stored_prompts(prompts))
