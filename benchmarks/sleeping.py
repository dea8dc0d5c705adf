"""A grid whose workers sleep instead of drawing: the engine's work and none of the network's."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

import numpy as np
from prefect import flow
from prefect.futures import wait

from flows.run.runners import with_workers
from tasks.storage import store
from tasks.storage.caching import cached_task


@cached_task
def sleep_sample(cell: int, shard: int, seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    images = np.full((8, 8), [cell % 251, shard % 251] * 4, np.uint8)
    return {**store.put_arrays({"images": images}, "shard"), "n": 1}


@cached_task
def sleep_embed(images: dict[str, Any], seconds: float) -> dict[str, Any]:
    store.get_arrays(images)
    time.sleep(seconds)
    return {**store.put_arrays({"features": np.zeros((1, 8), np.float32)}, "features"), "n": 1}


@cached_task
def sleep_score(cell: int, features: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return {"fid": float(cell)}


@flow(name="sleeping-grid")
def sleeping_grid(cells: int, shards: int, seconds: float) -> int:
    """As `fid_grid` does: all work submitted at once, cell by cell."""
    scores = []
    for cell in range(cells):
        images: list[Any] = [sleep_sample.submit(cell, i, seconds) for i in range(shards)]
        features: list[Any] = [sleep_embed.submit(one, seconds / 10) for one in images]
        scores.append(sleep_score.submit(cell, features, seconds / 10))
    wait(scores)
    return len(scores)


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
        "cpu": time.process_time() - cpu,
        "memory": 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory),
        "pid": os.getpid(),
    }))  # fmt: skip


if __name__ == "__main__":
    from benchmarks import sleeping  # tasks know their module by its name, which is not __main__

    sleeping.main(sys.argv[1])
