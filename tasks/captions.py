"""Which prompts a grid's images are drawn for."""

from __future__ import annotations

from pathlib import Path

from ddim_core.conditioning import require_prompts
from ddim_core.prompts import read_prompts
from tasks.prompts import store_prompts


def prompts_for(with_prompts: bool, location: str, dataset: str) -> str:
    """Stores the prompts of a checkpoint's images and returns the list's digest.

    Args:
        with_prompts: Whether the checkpoint is told of a text.
        location: As of `read_prompts`; empty takes the data set's captions.
        dataset: Name or place of the data set.

    Raises:
        ValueError: If there are none, or the checkpoint wants none.
    """
    if not location and not Path(dataset).is_dir():
        require_prompts(with_prompts, 0)
    prompts = read_prompts(location or dataset)
    require_prompts(with_prompts, len(prompts))
    return store_prompts(prompts)
