"""Checkpoint and cell in, a shard of images out."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from ddim_core.checkpoints.conditioning import conditioned
from ddim_core.common.digest import code_digest, digest
from ddim_core.diffusion.sampling import ImageNoise, sample
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import Execution, GridCell
from ddim_core.images.pixels import to_uint8
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.images.stored_prompts import stored_prompts
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class DrawnImages(ArtifactRef):
    """Images uint8 [n, h, w, c], and the seconds that they took when they were first drawn."""

    seconds: float


@dataclass(frozen=True)
class Shard(DrawnImages):
    """Images of a cell: n of them, of which the task drew so many on the device."""

    n: int
    drawn: int
    device: str


@cached_task
def sample_shard(
    cell: GridCell, checkpoint: ArtifactRef, start: int, stop: int, execution: Execution
) -> Shard:
    """Samples images start..stop-1 of a cell.

    Images that another run drew (a shorter or longer shard from the same start) are taken from
    the store, and only the others are drawn.
    """
    name = digest(code_digest(__name__), cell, checkpoint, start)
    images, seconds = _longest_beginning(name, stop - start)
    n_kept = len(images)
    if n_kept < stop - start:
        began = time.perf_counter()
        drawn = _draw(cell, checkpoint, range(start + n_kept, stop), execution)
        seconds += time.perf_counter() - began
        images = np.concatenate([images, drawn]) if n_kept else drawn
    ref = store.put_arrays({"images": images}, "shard")
    made = DrawnImages(ref.artifact, ref.kind, seconds)
    store.bind(f"{name}/{stop - start}", made)
    n_drawn = stop - start - n_kept
    return Shard(**vars(made), n=stop - start, drawn=n_drawn, device=execution.device)


def _longest_beginning(name: str, n_wanted: int) -> tuple[np.ndarray, float]:
    """Returns as many of a shard's first images as the store has, and what these took to draw."""
    known = {int(n): ref for n, ref in store.bound(name, DrawnImages).items()}
    if not known:
        return np.empty(0, np.uint8), 0.0
    enough = [n for n in known if n >= n_wanted]
    n_known = min(enough) if enough else max(known)
    ref = known[n_known]
    n_kept = min(n_known, n_wanted)
    return store.get_arrays(ref)["images"][:n_kept], ref.seconds * n_kept / n_known


def _draw(
    cell: GridCell, checkpoint: ArtifactRef, indices: range, execution: Execution
) -> np.ndarray:
    torch.set_num_threads(execution.threads)
    loaded = checkpoint_in_memory(checkpoint, execution.device, cell.dtype)
    schedule = NoiseSchedule.from_spec(cell.noise) if cell.noise else loaded.schedule
    prompts = stored_prompts(cell.prompts) if cell.prompts else []
    batches = []
    for first in range(0, len(indices), execution.batch_size):
        batch = indices[first : first + execution.batch_size]
        noise = ImageNoise(cell.seed, list(batch), loaded.noise_shape, execution.device)
        with torch.inference_mode():
            scale = cell.sampler.guidance_scale
            model = conditioned(loaded, batch, scale, execution.device, prompts)
            *_, last = sample(model, schedule, cell.sampler, noise.x_T(), noise)
            images = loaded.images(last.x)
        batches.append(to_uint8(images))
    return np.concatenate(batches)
