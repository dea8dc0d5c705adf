"""Pictures of prompts by the base, or by it with a LoRA: validation, which trains nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load

from ddim_core.lora.pipeline import draw, pipeline_with
from ddim_core.lora.specs import LoraExecution, LoraSpec, PictureSpec
from ddim_core.text2image.base_folder import load_pipeline
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def validation_pictures(
    prompts: list[str],
    pictures: PictureSpec,
    spec: LoraSpec,
    adapter: ArtifactRef | None,
    base: dict[str, str],
    location: str,
    execution: LoraExecution,
) -> ArtifactRef:
    """Draws each prompt once, all from one seed; without an adapter by the base alone."""
    torch.set_num_threads(execution.threads)
    weights = load(store.get(adapter)) if adapter else None
    with card(execution.device) as device:
        pipeline = (
            load_pipeline(Path(location), device)
            if weights is None
            else pipeline_with(Path(location), spec, weights, device)
        )
        drawn = draw(pipeline, prompts, [pictures.seed] * len(prompts), pictures)
    return store.put_arrays({"images": drawn}, "images")
