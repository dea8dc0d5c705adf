"""A spec in, a trained noise model of points out."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

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


@cached_task
def train_point_model(spec: PointTrainSpec, execution: Execution) -> dict[str, Any]:
    """Trains a noise model; returns a reference to the average of its weights, as safetensors.

    `seconds` is what the training took when it was done, `loss` the mean of its last steps. Two
    processes do not train one model at once: the second waits and takes the first one's.
    """
    torch.set_num_threads(execution.threads)
    name = digest(code_digest(__name__), spec)
    lock = places.local_dir("work", f"{name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        for ref in store.bound(name, dict).values():
            return dict(ref)  # made by another process while this one waited
        began = time.perf_counter()
        state = start(spec)
        losses: list[float] = []
        with tqdm(total=spec.steps, desc="training", unit="step", disable=None) as bar:
            for record in train_points(spec, state):
                losses = [*losses[1 - LAST_LOSSES :], record.loss]
                bar.update()
        seconds = time.perf_counter() - began
        made = {
            **store.put(to_bytes(state.ema), "point-model"),
            "seconds": seconds,
            "loss": sum(losses) / len(losses),
        }
        store.bind(f"{name}/model", made)  # type: ignore[arg-type]
    return made


def model_in_memory(ref: ArtifactRef, spec: PointModelSpec, noise: NoiseSpec) -> PointModel:
    """Returns a stored model, read once."""
    return _model(ref["artifact"], spec, noise)


@lru_cache(maxsize=8)
def _model(artifact: str, spec: PointModelSpec, noise: NoiseSpec) -> PointModel:
    return from_bytes(store.get(ArtifactRef(artifact=artifact, kind="point-model")), spec, noise)
