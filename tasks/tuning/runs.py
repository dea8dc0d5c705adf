"""Runs of a stored checkpoint from the noise that settings are tuned on, or are judged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.checkpoints.conditioning import conditioned
from ddim_core.diffusion.specs import Execution, GridCell
from ddim_core.images.pixels import to_uint8
from ddim_core.networks.denoisers import network_batch
from ddim_core.pipelines.fitting import halves_of, require_setting, where_it_asks
from ddim_core.tuning.asked import visits_by_loop
from ddim_core.tuning.positions import Visits
from ddim_core.tuning.runs import LoopRuns, PipelineRuns, Runs
from tasks.cells.extractor_memory import extractor_in_memory
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.checkpoints.pipelines import pipeline_in_memory
from tasks.checkpoints.scheduler import scheduler_in
from tasks.images.stored_prompts import stored_prompts
from tasks.sampling.conditions import conditions_for
from tasks.sampling.guidance import guided_where
from tasks.sampling.pipeline import (
    batch_of,
    by_pipeline,
    pipeline_of,
    resolution_of,
    setting_of,
)
from tasks.storage.store import ArtifactRef


def runs_of(
    cell: GridCell,
    checkpoint: ArtifactRef,
    conditions: ArtifactRef | None,
    first: int,
    n_images: int,
    execution: Execution,
) -> Runs:
    """Returns runs of a checkpoint as a cell says it is drawn, of n_images from the index first."""
    torch.set_num_threads(execution.threads)
    scale, device = cell.sampler.guidance_scale, execution.device
    if by_pipeline(cell):
        return PipelineRuns(
            pipeline_of(cell, checkpoint, device),
            lambda indices: conditions_for(checkpoint, conditions, indices),
            scale,
            cell.seed,
            first,
            n_images,
            chunk_of(cell, checkpoint),
            cell.sampler.guidance_interval,
        )
    loaded = checkpoint_in_memory(checkpoint, device, cell.dtype, cell.card)
    prompts = stored_prompts(cell.prompts) if cell.prompts else []
    return LoopRuns(
        lambda indices: conditioned(
            loaded, indices, scale, device, prompts, inside=guided_where(cell, checkpoint)
        ),
        scheduler_in(cell, checkpoint),
        loaded.noise_shape,
        cell.seed,
        first,
        n_images,
        chunk_of(cell, checkpoint),
        device,
    )


def see_ends(
    cell: GridCell, checkpoint: ArtifactRef, extractor: ArtifactRef | None, device: str
) -> Callable[[Tensor], Tensor]:
    """Returns what turns the ends of runs into what distances are taken between: into features
    [n, d], NaN where an end is not finite; without an extractor the ends stay as they are."""
    if extractor is None:
        return lambda ends: ends

    def seen(ends: Tensor) -> Tensor:
        whole = torch.isfinite(ends).flatten(1).all(dim=1)
        images = pictures(cell, checkpoint, ends.nan_to_num(), device)
        features = torch.from_numpy(extractor_in_memory(extractor, images.shape[1:])(images))
        features[~whole] = torch.nan
        return features

    return seen


def pictures(
    cell: GridCell, checkpoint: ArtifactRef, ends: Tensor, device: str
) -> NDArray[np.uint8]:
    """Returns ends of runs as pictures [n, h, w, c]: of a latent model decoded."""
    if by_pipeline(cell):
        return to_uint8(ends)
    with torch.inference_mode():
        loaded = checkpoint_in_memory(checkpoint, device, cell.dtype, cell.card)
        return to_uint8(loaded.images(ends.to(device)))


def chunk_of(cell: GridCell, checkpoint: ArtifactRef) -> int:
    """Returns how many images the network is asked about at once."""
    if by_pipeline(cell):
        return batch_of(cell)
    if cell.card is not None:
        return cell.card.batch
    return network_batch(checkpoint_in_memory(checkpoint).noise_shape)


def visits_of(cell: GridCell, checkpoint: ArtifactRef) -> Visits:
    """Returns what tells where a sampler would ask the cell's network.

    Raises:
        ValueError: As `require_setting` of a pipeline's cell, and `halves_of` with an interval of
            guidance.
    """
    if by_pipeline(cell):
        opened = pipeline_in_memory(checkpoint, resolution=resolution_of(cell))
        setting = setting_of(cell)
        require_setting(opened, setting)  # guidance, say, has nothing to do with lists
        if setting.interval is not None:
            halves_of(opened, setting.interval)
        return lambda name, steps: where_it_asks(
            opened, replace(setting, sampler=name, steps=steps, interval=None)
        )
    return visits_by_loop(scheduler_in(cell, checkpoint))
