"""A spec in, a trained noise model of points out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache

import torch
from filelock import FileLock
from tqdm import tqdm

from ddim_core.common.digest import code_digest, digest
from ddim_core.diffusion.specs import Execution, NoiseSpec
from ddim_core.points.model import PointModel, from_bytes, start, to_bytes, train_points
from ddim_core.points.specs import PointModelSpec, PointTrainSpec
from tasks.storage import places, store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

LAST_LOSSES = 200


@dataclass(frozen=True)
class TrainedPoints(ArtifactRef):
    """The average of a noise model's weights, as safetensors.

    Attributes:
        seconds: What the training took when it was done.
        loss: The mean of its last steps.
    """

    seconds: float
    loss: float


@cached_task
def train_point_model(spec: PointTrainSpec, execution: Execution) -> TrainedPoints:
    """Trains a noise model.

    Two processes do not train one model at once: the second waits and takes the first one's.
    """
    torch.set_num_threads(execution.threads)
    name = digest(code_digest(__name__), spec)
    lock = places.local_dir("work", f"{name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        for known in store.bound(name, TrainedPoints).values():
            return known  # made by another process while this one waited
        began = time.perf_counter()
        state = start(spec)
        losses: list[float] = []
        with tqdm(total=spec.steps, desc="training", unit="step", disable=None) as bar:
            for record in train_points(spec, state):
                losses = [*losses[1 - LAST_LOSSES :], record.loss]
                bar.update()
        seconds = time.perf_counter() - began
        ref = store.put(to_bytes(state.ema), "point-model")
        made = TrainedPoints(**vars(ref), seconds=seconds, loss=sum(losses) / len(losses))
        store.bind(f"{name}/model", made)  # type: ignore[arg-type]
    return made


def model_in_memory(ref: ArtifactRef, spec: PointModelSpec, noise: NoiseSpec) -> PointModel:
    """Returns a stored model, read once."""
    return _model(ref.artifact, spec, noise)


@lru_cache(maxsize=8)
def _model(artifact: str, spec: PointModelSpec, noise: NoiseSpec) -> PointModel:
    return from_bytes(store.get(ArtifactRef(artifact=artifact, kind="point-model")), spec, noise)
