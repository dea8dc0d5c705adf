"""Prompts, a base of any family and LoRA files over it in, pictures out."""

from __future__ import annotations

import resource
import time

import torch

from ddim_core.diffusion.specs import Execution, OnCard
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.drawing import draw
from ddim_core.samplers.name import parse_sampler
from tasks.checkpoints.pipelines import pipeline_in_memory
from tasks.lora.scoring.pictures import DrawnPictures
from tasks.machine.device import card
from tasks.sampling.conditions import conditions_for
from tasks.sampling.pipeline import Laid, Libraries
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def draw_with_loras(
    asked: PromptSet,
    sampler: str,
    base: ArtifactRef,
    loras: Laid,
    conditions: ArtifactRef,
    batch: int,
    dtype: str,
    libraries: Libraries,
    on_card: OnCard | None,
    execution: Execution,
) -> DrawnPictures:
    """Draws the pictures of a prompt set by a pipeline's own call; without LoRAs, the base's own.

    Args:
        asked: What is drawn, from which noise.
        sampler: By the project's name; `own` is the base's own scheduler.
        base: The stored pipeline.
        loras: Digests of the files over it, and how much of each counts.
        conditions: What the prompts are encoded to, a row each.
        batch: Pictures at once; part of what they are.
        dtype: Of the networks.
        libraries: Whose arithmetic this is; they count in the key.
        on_card: How a card runs it; None as a CPU does.
        execution: Device and threads.
    """
    torch.set_num_threads(execution.threads)
    n = len(asked.texts)
    setting = Setting(parse_sampler(sampler), asked.steps, asked.guidance, 0.0, asked.seed)
    rows = conditions_for(base, conditions, [i // asked.per_prompt for i in range(n)])
    with card(execution.device, dtype) as device, torch.inference_mode():
        opened = pipeline_in_memory(base, device, dtype, loras, on_card)
        began = time.perf_counter()
        images = draw(opened, setting, range(n), rows, batch).images
        seconds = time.perf_counter() - began
    return DrawnPictures(
        **vars(store.put_arrays({"images": images}, "pictures")),
        n_images=n,
        seconds=seconds,
        peak_memory_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )
