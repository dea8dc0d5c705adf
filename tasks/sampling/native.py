"""Checkpoint and cell in, a shard of images out: by the sampler of our own."""

from __future__ import annotations

import numpy as np
import torch

from ddim_core.checkpoints.conditioning import conditioned
from ddim_core.common.digest import code_digest, digest
from ddim_core.diffusion.sampling import ImageNoise, plan, sample
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import Execution, GridCell, SamplerSpec
from ddim_core.images.pixels import to_uint8
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.images.stored_prompts import stored_prompts
from tasks.sampling.shards import Images, Shard, extended
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def sample_shard(
    cell: GridCell, checkpoint: ArtifactRef, start: int, stop: int, execution: Execution
) -> Shard:
    """Samples images start..stop-1 of a cell; of these only what no other run has drawn."""
    name = digest(code_digest(__name__), cell, checkpoint, start)
    return extended(
        name,
        start,
        stop,
        execution.device,
        lambda indices: _draw(cell, checkpoint, indices, execution),
    )


def _draw(cell: GridCell, checkpoint: ArtifactRef, indices: range, execution: Execution) -> Images:
    assert isinstance(cell.sampler, SamplerSpec)
    torch.set_num_threads(execution.threads)
    loaded = checkpoint_in_memory(checkpoint, execution.device, cell.dtype)
    own = loaded.require_schedule()
    schedule = NoiseSchedule.from_spec(cell.noise) if cell.noise else own
    prompts = stored_prompts(cell.prompts) if cell.prompts else []
    scale = cell.sampler.guidance_scale
    batches = []
    for first in range(0, len(indices), execution.batch_size):
        batch = indices[first : first + execution.batch_size]
        noise = ImageNoise(cell.seed, list(batch), loaded.noise_shape, execution.device)
        with torch.inference_mode():
            model = conditioned(loaded, batch, scale, execution.device, prompts)
            for step in sample(model, schedule, cell.sampler, noise.x_T(), noise):
                last = step.x  # none but the last is kept
            images = loaded.images(last)
        batches.append(to_uint8(images))
    # Guidance asks the network twice, with the class and without.
    nfe = len(plan(schedule, cell.sampler)) * (1 if scale in (0.0, 1.0) else 2)
    return Images(np.concatenate(batches), nfe)
