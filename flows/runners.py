"""How many tasks run at once."""

from __future__ import annotations

from os import cpu_count
from typing import Any

from prefect import Flow
from prefect.task_runners import ThreadPoolTaskRunner

from ddim_core.specs import require_at_least


def with_workers(flow: Flow[..., Any], workers: int | None) -> Flow[..., Any]:
    """Returns the flow on a pool of so many threads; as it is if no number is given.

    Raises:
        ValueError: If workers is below 1.
    """
    if workers is None:
        return flow
    require_at_least("workers", workers, 1)
    runner: Any = ThreadPoolTaskRunner(max_workers=workers)
    return flow.with_options(task_runner=runner)


# Prefect's own default starts every task at once.
ONE_TASK_A_CORE: Any = ThreadPoolTaskRunner(max_workers=cpu_count() or 1)
