"""Which task draws a cell: each kind of sampler has one of its own, and so code of its own in the
keys of what it draws."""

from __future__ import annotations

from prefect import Task

from ddim_core.diffusion.specs import GridCell, SamplerSpec
from tasks.sampling.native import sample_shard
from tasks.sampling.pipeline import draw_by_pipeline
from tasks.sampling.scheduled import draw_shard
from tasks.sampling.shards import Shard


def task_for(cell: GridCell) -> Task[..., Shard]:
    """Returns the Prefect task that draws a shard of a cell's images."""
    if isinstance(cell.sampler, SamplerSpec):
        return sample_shard
    return draw_by_pipeline if cell.sampler.pipeline else draw_shard


def drawn_by(cell: GridCell) -> str:
    """Returns the name of the module whose code draws a cell."""
    return str(task_for(cell).fn.__module__)
