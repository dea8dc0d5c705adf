"""A training's checkpoints in, the loss of each on images it was not trained on out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load

from ddim_core.lora.specs import LoraExecution, LoraSpec
from ddim_core.lora.texts import distinct_prompts
from ddim_core.lora.training.batches import TrainingImages
from ddim_core.lora.training.loss import Prompts
from ddim_core.lora.training.validation import validation_loss
from tasks.lora.train import Kept
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class ValidationCurve:
    """Pairs of a step and its validation loss, the base's at step 0 first."""

    losses: tuple[tuple[int, float], ...]


@cached_task
def validation_curve(
    spec: LoraSpec,
    checkpoints: Sequence[Kept],
    latents: ArtifactRef,
    captions: list[str],
    embeddings: ArtifactRef,
    base: dict[str, str],
    location: str,
    execution: LoraExecution,
) -> ValidationCurve:
    """Takes the loss of the base and of each checkpoint.

    Args:
        spec: How the LoRA was trained.
        checkpoints: The weights that were kept.
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
    stages = {0: None} | {kept.step: load(store.get(kept.adapter)) for kept in checkpoints}
    with card(execution.device) as device:
        losses = tuple(
            (step, validation_loss(Path(location), spec, weights, prompts, images, device))
            for step, weights in stages.items()
        )
    return ValidationCurve(losses)
