"""Checkpoint and cell in, a shard of images out: by a scheduler of diffusers over a bare U-Net."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from ddim_core.checkpoints.checkpoint import Checkpoint
from ddim_core.checkpoints.conditioning import as_guide, conditioned, for_one_run
from ddim_core.common.digest import code_digest, digest
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import Execution, GridCell, SchedulerSpec
from ddim_core.images.pixels import to_uint8
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import learns_variance, scheduler_for, set_steps
from ddim_core.samplers.streams import image_streams
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.checkpoints.scheduler import scheduler_in
from tasks.images.stored_prompts import stored_prompts
from tasks.machine.device import card
from tasks.sampling.batches import batches, shard_of
from tasks.sampling.guidance import further_calls, guide_of, guided_where
from tasks.sampling.shards import Images, Shard
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def draw_shard(
    cell: GridCell, checkpoint: ArtifactRef, start: int, stop: int, execution: Execution
) -> Shard:
    """Draws images start..stop-1 of a cell; of these only what no other run has drawn."""
    name = digest(code_digest(__name__), cell, checkpoint, start)
    size = cell.card.batch if cell.card else execution.batch_size
    return shard_of(
        name, cell, checkpoint, start, stop, execution, size,
        lambda *which: _draw(cell, checkpoint, execution, *which),
    )  # fmt: skip


def _draw(
    cell: GridCell,
    checkpoint: ArtifactRef,
    execution: Execution,
    indices: range,
    size: int,
    n_before: int,
) -> Images:
    spec = cell.sampler
    assert isinstance(spec, SchedulerSpec)
    torch.set_num_threads(execution.threads)
    sampler = parse_sampler(spec.sampler)
    own = scheduler_in(cell, checkpoint)
    inside = guided_where(cell, checkpoint)
    prompts = stored_prompts(cell.prompts) if cell.prompts else []
    made, nfe = [], 0
    with card(execution.device, cell.dtype) as device:
        began = time.perf_counter()
        loaded = checkpoint_in_memory(checkpoint, device, cell.dtype, cell.card)
        schedule = NoiseSchedule.from_spec(cell.noise) if cell.noise else loaded.schedule
        guide = guide_of(cell, device)

        def network(of: Checkpoint, scheduler: Any) -> Any:
            asked = of.model.whole if learns_variance(scheduler) else of.model
            return for_one_run(of, schedule, spec.prediction_type, asked)

        for batch in batches(indices, size, cell.card is not None, n_before):
            noise = ImageNoise(cell.seed, batch.keys, loaded.noise_shape, device)
            scheduler = scheduler_for(sampler, own)
            done = set_steps(scheduler, sampler, spec.steps, device)
            with torch.inference_mode():
                led_by = None
                if guide:
                    asked = network(guide, scheduler)
                    led_by = as_guide(guide, loaded, batch.keys, device, asked)
                model = conditioned(
                    loaded, batch.keys, spec.guidance_scale, device, prompts,
                    network=network(loaded, scheduler), inside=inside,
                    channels=spec.guidance_channels, guide=led_by,
                )  # fmt: skip
                streams = image_streams(cell.seed, batch.keys)
                drawn = draw(model, scheduler, noise.x_T(), streams, spec.eta)
                images = loaded.images(drawn.x)[batch.wanted]
            nfe = drawn.n_evaluations + further_calls(done.timesteps, spec, inside)
            made.append(to_uint8(images))
        seconds = time.perf_counter() - began
    return Images(np.concatenate(made), nfe, seconds)
