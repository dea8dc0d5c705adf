"""A grid whose workers sleep instead of drawing: the engine's work and none of the network's."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from prefect import flow

from flows.run.runners import with_workers
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.artifact import ArtifactRef
from tasks.storage.caching import cached_task

at_work: list[float] = []  # when a card was taken, and when it was let go


@dataclass(frozen=True)
class Slept:
    """A score."""

    fid: float


def sleep_on(device: str, seconds: float) -> None:
    with card(device) as mine:
        if mine != "cpu":
            at_work.append(time.perf_counter())
        time.sleep(seconds)
        if mine != "cpu":
            at_work.append(time.perf_counter())


@cached_task
def sleep_sample(
    cell: int, shard: int, seconds: float, device: str, shape: list[int]
) -> ArtifactRef:
    sleep_on(device, seconds)
    images = np.full(shape, [cell % 251, shard % 251] * 4, np.uint8)
    return store.put_arrays({"images": images}, "shard")


@cached_task
def sleep_embed(images: ArtifactRef, seconds: float, device: str) -> ArtifactRef:
    store.get_arrays(images)
    sleep_on(device, seconds)
    return store.put_arrays({"features": np.zeros((1, 8), np.float32)}, "features")


@cached_task
def sleep_score(cell: int, features: list[ArtifactRef], seconds: float) -> Slept:
    time.sleep(seconds)
    return Slept(float(cell))


@flow(name="sleeping-grid")
def sleeping_grid(
    cells: int,
    shards: int,
    seconds: float,
    device: str = "cpu",
    shape: Sequence[int] = (8, 8),
) -> int:
    """As `fid_grid` does: all work submitted at once, cell by cell."""
    scores = []
    for cell in range(cells):
        images: list[Any] = [
            sleep_sample.submit(cell, i, seconds, device, list(shape)) for i in range(shards)
        ]
        features: list[Any] = [sleep_embed.submit(one, seconds / 10, device) for one in images]
        scores.append(sleep_score.submit(cell, features, seconds / 10))
    return len([score.result() for score in scores])


def main(text: str) -> None:
    asked = json.loads(text)
    workers = asked.pop("workers")
    grid = with_workers(sleeping_grid, workers)
    grid(cells=1, shards=1, seconds=0.011)  # unmeasured: imports, connections
    began, cpu = time.perf_counter(), time.process_time()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grid(**asked)
    print("measured", json.dumps({
        "wall": time.perf_counter() - began,
        "card": max(at_work) - min(at_work) if at_work else None,
        "cpu": time.process_time() - cpu,
        "memory": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory),
        "pid": os.getpid(),
    }))  # fmt: skip


if __name__ == "__main__":
    from benchmarks import sleeping  # tasks know their module by its name, which is not __main__

    sleeping.main(sys.argv[1])
