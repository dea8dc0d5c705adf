"""The scheduler that a stored checkpoint came with, as the samplers of a cell take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddim_core.checkpoints.checkpoint import scheduler_config
from ddim_core.checkpoints.scheduler import noise_scheduler, scheduler_trained
from ddim_core.common.foreign import Config
from ddim_core.common.plain_files import is_there
from ddim_core.diffusion.scheduler_config import FLOW_PREDICTION
from ddim_core.diffusion.specs import GridCell, NoiseSpec, SchedulerSpec
from ddim_core.samplers.scheduler import config_of
from tasks.checkpoints.pipelines import is_pipeline, pipeline_in_memory
from tasks.storage import store
from tasks.storage.store import ArtifactRef


def scheduler_of(checkpoint: ArtifactRef) -> Config | None:
    """What diffusers would sample with; None where the checkpoint came without it."""
    folder = store.get_folder(checkpoint)
    if is_pipeline(folder):
        return dict(pipeline_in_memory(checkpoint).scheduler)
    there = is_there(folder / "scheduler" / "scheduler_config.json")
    return scheduler_config(folder) if there else None


def scheduler_in(cell: GridCell, checkpoint: ArtifactRef | None) -> Config:
    """Returns what a checkpoint came with as a cell departs from it; None is the toy model that is
    not yet trained."""
    return departing(scheduler_of(checkpoint) if checkpoint else None, cell)


def departing(own: Mapping[str, Any] | None, cell: GridCell) -> Config:
    """Returns a checkpoint's scheduler_config.json, with the class, as a cell departs from it: with
    another schedule, another prediction type. Without one (None) it is DDPM's, the usual of
    diffusers; of a flow's toy, that of a flow."""
    if own is None and cell.sampler.prediction_type == FLOW_PREDICTION:
        own = config_of(scheduler_trained(NoiseSpec(), "flow"))
    own = dict(own or noise_scheduler(NoiseSpec()).config)
    if cell.noise:
        own |= {"trained_betas": None, **noise_scheduler(cell.noise).config}
    return own | {"prediction_type": cell.sampler.prediction_type}


def own_scheduler(cell: GridCell, checkpoint: ArtifactRef | None) -> Config:
    """Returns what a cell's `own` is: of a pipeline what lies in it, else `scheduler_in`."""
    spec = cell.sampler
    if checkpoint and isinstance(spec, SchedulerSpec) and spec.pipeline:
        return dict(pipeline_in_memory(checkpoint).scheduler)
    return scheduler_in(cell, checkpoint)
