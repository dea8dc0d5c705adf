"""Model and cell in, generated points out, and their scores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ddim_core.common.last import last_of
from ddim_core.diffusion.sampling import ImageNoise, SampleStep, sample
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import Execution, GridCell, SamplerSpec
from ddim_core.points.specs import PointTrainSpec
from tasks.points.model import model_in_memory
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class DrawnPoints(ArtifactRef):
    """Points float32 [n, 2], the seconds that they took, and the seed of their noise."""

    seconds: float
    seed: int


@cached_task
def sample_points(
    cell: GridCell, training: PointTrainSpec, model: ArtifactRef, n: int, execution: Execution
) -> DrawnPoints:
    """Samples n points of a cell."""
    began = time.perf_counter()
    with torch.inference_mode():
        last = last_of(_steps(cell, training, model, n, execution))
    ref = store.put_arrays({"points": last.x.numpy()}, "points")
    return DrawnPoints(**vars(ref), seconds=time.perf_counter() - began, seed=cell.seed)


@cached_task
def trace_points(
    cell: GridCell, training: PointTrainSpec, model: ArtifactRef, n: int, execution: Execution
) -> ArtifactRef:
    """Samples n points and keeps every step; returns a reference to x [S + 1, n, 2] (first x_T),
    x0_hat [S, n, 2] and t [S + 1], the timestep that each x lies at (-1: clean)."""
    with torch.inference_mode():
        records = list(_steps(cell, training, model, n, execution))
    x_T = ImageNoise(cell.seed, range(n), (2,)).x_T()
    arrays = {
        "x": torch.stack([x_T, *(record.x for record in records)]).numpy(),
        "x0_hat": torch.stack([record.x0_hat for record in records]).numpy(),
        "t": np.array([records[0].t, *(record.s for record in records)]),
    }
    return store.put_arrays(arrays, "trace")


def _steps(
    cell: GridCell, training: PointTrainSpec, ref: ArtifactRef, n: int, execution: Execution
) -> Iterator[SampleStep]:
    torch.set_num_threads(execution.threads)
    model = model_in_memory(ref, training.model, training.noise)
    noise = ImageNoise(cell.seed, range(n), (2,))
    schedule = NoiseSchedule.from_spec(training.noise)
    assert isinstance(cell.sampler, SamplerSpec)  # points have the sampler of our own alone
    return sample(model, schedule, cell.sampler, noise.x_T(), noise)
