"""Checkpoint and cell in, a shard of images out: by the sampler of our own."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from ddim_core.checkpoints.checkpoint import Checkpoint
from ddim_core.common.digest import code_digest, digest
from ddim_core.common.last import last_of, one_ahead
from ddim_core.diffusion.noise_ahead import NoiseAhead
from ddim_core.diffusion.sampling import ImageNoise, adds_noise, plan, sample
from ddim_core.diffusion.specs import Execution, GridCell, SamplerSpec
from ddim_core.images.pixels import to_uint8
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.machine.device import card
from tasks.sampling.batches import Batch, batches, shard_of
from tasks.sampling.guidance import AskedNetwork
from tasks.sampling.shards import Images, Shard
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def sample_shard(
    cell: GridCell, checkpoint: ArtifactRef, start: int, stop: int, execution: Execution
) -> Shard:
    """Samples images start..stop-1 of a cell; of these only what no other run has drawn."""
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
    assert isinstance(cell.sampler, SamplerSpec)
    torch.set_num_threads(execution.threads)
    with card(execution.device, cell.dtype) as device:
        began = time.perf_counter()
        loaded = checkpoint_in_memory(checkpoint, device, cell.dtype, cell.card)
        network = AskedNetwork(cell, checkpoint, loaded, device)
        schedule = network.schedule
        steps = plan(schedule, cell.sampler)
        drawn = []
        cut = batches(indices, size, cell.card is not None, n_before)
        for batch, noise in _with_noise(cell, loaded, cut, device, len(steps)):
            with torch.inference_mode():
                model = network.of_run(batch.keys)
                last = last_of(sample(model, schedule, cell.sampler, noise.x_T(), noise)).x
                images = loaded.images(last)[batch.wanted]
            drawn.append(to_uint8(images))
        seconds = time.perf_counter() - began
    nfe = len(steps) + network.further_calls([step.t for step in steps])
    return Images(np.concatenate(drawn), nfe, seconds)


def _with_noise(
    cell: GridCell, loaded: Checkpoint, cut: Iterable[Batch], device: str, n_steps: int
) -> Iterator[tuple[Batch, ImageNoise | NoiseAhead]]:
    """The batches with their noise; on a card the next one's is begun while one is drawn."""
    if cell.card is None:
        for batch in cut:
            yield batch, ImageNoise(cell.seed, batch.keys, loaded.noise_shape, device)
        return
    assert isinstance(cell.sampler, SamplerSpec)
    n_draws = n_steps - 1 if adds_noise(cell.sampler) else 0
    begun = (
        (batch, NoiseAhead(cell.seed, batch.keys, loaded.noise_shape, device, n_draws))
        for batch in cut
    )
    yield from one_ahead(begun)
