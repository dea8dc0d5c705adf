"""Stored lists of prompts: a cell names one by its digest."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tasks.storage import store
from tasks.storage.store import ArtifactRef

KIND = "prompts"


def store_prompts(prompts: Sequence[str]) -> str:
    """Stores a list of prompts and returns its digest."""
    text = json.dumps(list(prompts), ensure_ascii=False)
    return store.put(text.encode(), KIND).artifact


def stored_prompts(digest: str) -> list[str]:
    """Returns a stored list of prompts."""
    prompts: list[str] = json.loads(store.get(ArtifactRef(artifact=digest, kind=KIND)))
    return prompts
