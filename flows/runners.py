"""How many tasks run at once."""

from __future__ import annotations

from os import cpu_count
from typing import Any

from prefect import Flow
from prefect.task_runners import ThreadPoolTaskRunner

from ddim_core.specs import require_at_least


def with_workers(flow: Flow[..., Any], workers: int | None) -> Flow[..., Any]:
    """Returns the flow on a pool of threads, one per core if no number is given.

    Raises:
        ValueError: If workers is below 1.
    """
    workers = workers if workers is not None else cpu_count() or 1
    require_at_least("workers", workers, 1)
    runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=workers)
    return flow.with_options(task_runner=runner)  # type: ignore[arg-type]  # Prefect's own class
