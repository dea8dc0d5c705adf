"""Checkpoint and cell in, a shard of images out: by a scheduler of diffusers over a bare U-Net."""

from __future__ import annotations

import time

import numpy as np
import torch

from ddim_core.common.digest import code_digest, digest
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.diffusion.specs import Execution, GridCell, SchedulerSpec
from ddim_core.images.pixels import to_uint8
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import learns_variance, scheduler_for, set_steps
from ddim_core.samplers.streams import image_streams
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.checkpoints.scheduler import scheduler_in
from tasks.machine.device import card
from tasks.sampling.batches import batches, shard_of
from tasks.sampling.guidance import AskedNetwork
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
    made, nfe = [], 0
    with card(execution.device, cell.dtype) as device:
        began = time.perf_counter()
        loaded = checkpoint_in_memory(checkpoint, device, cell.dtype, cell.card)
        network = AskedNetwork(cell, checkpoint, loaded, device)
        for batch in batches(indices, size, cell.card is not None, n_before):
            noise = ImageNoise(cell.seed, batch.keys, loaded.noise_shape, device)
            scheduler = scheduler_for(sampler, own)
            done = set_steps(scheduler, sampler, spec.steps)
            with torch.inference_mode():
                model = network.of_run(batch.keys, learns_variance(scheduler))
                streams = image_streams(cell.seed, batch.keys)
                drawn = draw(model, scheduler, noise.x_T(), streams, spec.eta)
                images = loaded.images(drawn.x)[batch.wanted]
            nfe = drawn.n_evaluations + network.further_calls(done.timesteps)
            made.append(to_uint8(images))
        seconds = time.perf_counter() - began
    return Images(np.concatenate(made), nfe, seconds)
