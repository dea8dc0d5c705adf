"""Prompts, a base and a LoRA in, pictures out."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ddim_core.diffusion.specs import Execution
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.text2image.pictures import open_pipeline, pictures, set_scale
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class DrawnPictures(ArtifactRef):
    """Arrays with `images`, the seconds that they took, and the process's peak memory."""

    n_images: int
    seconds: float
    peak_memory_bytes: int


@cached_task
def draw_prompts(
    asked: PromptSet,
    base: dict[str, str],
    lora: ArtifactRef | None,
    scale: float,
    location: str,
    execution: Execution,
) -> DrawnPictures:
    """Draws the pictures of a prompt set with a LoRA at a scale; without one, the base's own.

    Args:
        asked: What is drawn, from which noise.
        base: Digests of the base's parts; they stand in the key for `location`.
        lora: A folder with `pytorch_lora_weights.safetensors`; None is the base alone.
        scale: Of the LoRA; of no meaning without one.
        location: The base's folder.
        execution: Device, threads and pictures at once.
    """
    torch.set_num_threads(execution.threads)
    folder = store.get_folder(lora) if lora else None
    with card(execution.device) as device:
        began = time.perf_counter()
        pipeline = open_pipeline(Path(location), folder, device)
        if lora:
            set_scale(pipeline, scale)
        drawn = pictures(
            pipeline, asked.texts, asked.seeds, asked.steps, asked.guidance,
            min(execution.batch_size, len(asked.texts)), asked.resolution,
        )  # fmt: skip
        seconds = time.perf_counter() - began
    return DrawnPictures(
        **vars(store.put_arrays({"images": drawn}, "pictures")),
        n_images=len(drawn),
        seconds=seconds,
        peak_memory_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )
