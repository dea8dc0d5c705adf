"""Pipeline and cell in, a shard of images out: by the pipeline's own call."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from ddim_core.common.digest import code_digest, digest
from ddim_core.diffusion.specs import Execution, GridCell, SchedulerSpec
from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.drawing import draw
from ddim_core.pipelines.opening import OpenedPipeline
from ddim_core.pipelines.self_test import require_place_free
from ddim_core.samplers.name import parse_sampler
from tasks.checkpoints.pipelines import pipeline_in_memory
from tasks.machine.device import card
from tasks.sampling.batches import shard_of, within_memory
from tasks.sampling.conditions import conditions_for
from tasks.sampling.shards import Images, Shard
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

TEST_STEPS = 3
Libraries = tuple[tuple[str, str], ...]
Laid = tuple[tuple[str, float], ...]  # LoRA files over a pipeline: digests, and how much counts


@dataclass(frozen=True)
class Tested:
    """A pipeline and a sampler of which an image has the same bits wherever it stands."""

    sampler: str


@cached_task
def draw_by_pipeline(
    cell: GridCell,
    checkpoint: ArtifactRef,
    start: int,
    stop: int,
    execution: Execution,
    encoded: ArtifactRef | None = None,
) -> Shard:
    """Draws images start..stop-1 of a cell; of these only what no other run has drawn.

    `encoded`, the cell's prompts as far as they are wanted, is no part of the key: the cell says
    which prompts they are, and what encodes them.
    """
    name = digest(code_digest(__name__), cell, checkpoint, start)
    return shard_of(
        name, cell, checkpoint, start, stop, execution, batch_of(cell),
        lambda *which: _draw(cell, checkpoint, encoded, execution, *which),
    )  # fmt: skip


@cached_task
def require_own_place(
    cell: GridCell, checkpoint: ArtifactRef, execution: Execution, encoded: ArtifactRef | None
) -> Tested:
    """Tries a cell's pipeline and sampler: an image's bits may depend neither on its place in a
    batch nor on its neighbours, since shards are extended and resumed."""
    torch.set_num_threads(execution.threads)
    asked = setting_of(cell)
    listed = asked.sampler.n_listed
    asked = asked if listed else replace(asked, steps=min(asked.steps, TEST_STEPS))
    rows = conditions_for(checkpoint, encoded, range(5))

    def tried(size: int) -> Images:
        with card(execution.device, cell.dtype) as device, torch.inference_mode():
            opened = pipeline_of(cell, checkpoint, device)
            require_place_free(opened, asked, rows, size)
        return Images(np.empty(0, np.uint8), 0, 0.0)

    within_memory(cell, checkpoint, batch_of(cell), 0, tried)
    return Tested(asked.sampler.text)


def by_pipeline(cell: GridCell) -> bool:
    """Tells whether a cell is drawn by a pipeline's own call."""
    return isinstance(cell.sampler, SchedulerSpec) and bool(cell.sampler.pipeline)


def laid_over(cell: GridCell) -> Laid:
    """Returns the LoRA files that lie over a cell's pipeline."""
    return cell.sampler.loras if isinstance(cell.sampler, SchedulerSpec) else ()


def resolution_of(cell: GridCell) -> int | None:
    """Returns the height and width that a cell's pipeline is asked for; None for its own."""
    return cell.sampler.resolution if isinstance(cell.sampler, SchedulerSpec) else None


def libraries_of(cell: GridCell) -> Libraries:
    """Returns the libraries whose arithmetic a pipeline's cell is, with their versions."""
    return cell.sampler.libraries if isinstance(cell.sampler, SchedulerSpec) else ()


def setting_of(cell: GridCell) -> Setting:
    """Returns a cell's setting as a pipeline is asked for it."""
    spec = cell.sampler
    assert isinstance(spec, SchedulerSpec)
    return Setting(
        parse_sampler(spec.sampler), spec.steps, spec.guidance_scale, spec.eta, cell.seed,
        spec.guidance_interval,
    )  # fmt: skip


def batch_of(cell: GridCell) -> int:
    """Returns how many images a cell's pipeline draws at once: part of what they are."""
    assert isinstance(cell.sampler, SchedulerSpec)
    return cell.sampler.batch


def _draw(
    cell: GridCell,
    checkpoint: ArtifactRef,
    encoded: ArtifactRef | None,
    execution: Execution,
    indices: range,
    size: int,
    n_before: int,
) -> Images:
    torch.set_num_threads(execution.threads)
    rows = conditions_for(checkpoint, encoded, indices)
    with card(execution.device, cell.dtype) as device, torch.inference_mode():
        began = time.perf_counter()
        opened = pipeline_of(cell, checkpoint, device)
        drawn = draw(opened, setting_of(cell), indices, rows, size, n_before)
        seconds = time.perf_counter() - began
    return Images(drawn.images, drawn.nfe, seconds)


def pipeline_of(cell: GridCell, checkpoint: ArtifactRef, device: str) -> OpenedPipeline:
    """Returns a cell's pipeline with its LoRAs, as the cell is drawn."""
    return pipeline_in_memory(
        checkpoint, device, cell.dtype, laid_over(cell), cell.card, resolution_of(cell)
    )
