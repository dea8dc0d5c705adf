"""A training loop announces its checkpoints: `ddim serve` scores and judges each, once.

Copy it beside the training script. It needs Prefect alone, and the two exports that `ddim serve`
prints: PREFECT_API_URL and PREFECT_API_AUTH_STRING. Without the first nothing is sent.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def announce(checkpoint: Path) -> None:
    """Tells Prefect of a whole checkpoint; a server that is away does not stop the training."""
    if not os.environ.get("PREFECT_API_URL"):
        return
    from prefect.events import emit_event

    emit_event(
        "checkpoint.created",
        {"prefect.resource.id": f"ddim.checkpoint.{checkpoint.name}"},
        payload={"path": str(checkpoint.resolve())},
    )


def save_and_announce(pipeline: Any, checkpoint: Path) -> None:
    """Saves a diffusers pipeline under its name only when all of it is there, and announces it."""
    half_done = checkpoint.with_name(f".{checkpoint.name}")
    pipeline.save_pretrained(half_done)
    half_done.rename(checkpoint)
    announce(checkpoint)
