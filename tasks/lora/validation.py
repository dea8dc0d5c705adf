"""A training's checkpoints in, the loss of each on images it was not trained on out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from ddim_core.lora.specs import LoraExecution, LoraSpec
from ddim_core.lora.texts import distinct_prompts
from ddim_core.lora.training.batches import TrainingImages
from ddim_core.lora.training.loss import Prompts
from ddim_core.lora.training.validation import validation_loss
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def validation_curve(
    spec: LoraSpec,
    checkpoints: list[dict[str, Any]],
    latents: ArtifactRef,
    captions: list[str],
    embeddings: ArtifactRef,
    base: dict[str, str],
    location: str,
    execution: LoraExecution,
) -> dict[str, Any]:
    """Returns `curve`: pairs of a step and its validation loss, the base's at step 0 first.

    Args:
        spec: How the LoRA was trained.
        checkpoints: Records with `step` and `adapter`.
        latents: Of the images it was not trained on.
        captions: Theirs.
        embeddings: Of the distinct captions.
        base: Digests of the base's parts.
        location: The base's folder.
        execution: Device and threads.
    """
    torch.set_num_threads(execution.threads)
    images = TrainingImages.from_arrays(
        store.get_arrays(latents), captions, distinct_prompts(captions)
    )
    prompts = Prompts.from_arrays(store.get_arrays(embeddings))
    stages = [{"step": 0, "adapter": None}, *checkpoints]
    curve = []
    for stage in stages:
        weights = load(store.get(stage["adapter"])) if stage["adapter"] else None
        loss = validation_loss(Path(location), spec, weights, prompts, images, execution.device)
        curve.append([int(stage["step"]), loss])
    return {"curve": curve}
