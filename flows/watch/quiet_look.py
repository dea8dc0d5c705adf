"""A look at the watched places that leaves no run: is there anything for `checkpoint-watch` to do?

`ddim watch` (which `make serve` starts) looks so again and again, and runs the flow only when there
is, so that Prefect's list of runs shows what happened and not that nothing did.
"""

from __future__ import annotations

import time
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey

from flows.checkpoint_watch import (
    ENDED_BADLY,
    data_content,
    look_at,
)
from flows.early.refuse import refuse
from flows.requests.watch import Job, Watch
from tasks.checkpoints.addresses import listed_sources
from tasks.checkpoints.arrivals import Candidate, recall, stamp_of
from tasks.checkpoints.identity import is_scored

WATCH = "checkpoint-watch/checkpoint-watch"


def deployed_watch() -> Watch:
    """Returns the parameters of the deployment `checkpoint-watch`, as `is_news` takes them.

    The schedule that earlier versions gave it, and that a new deploying keeps, is taken away.
    """
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(WATCH)
        for schedule in deployment.schedules:
            client.delete_deployment_schedule(deployment.id, schedule.id)
        return Watch(**deployment.parameters)


def is_news(asked: Watch, told: dict[str, str]) -> bool:
    """Tells whether a look by the flow would do, or say, anything that none before did.

    Args:
        asked: The parameters of `checkpoint_watch`.
        told: What this process has had the flow look at, by address; this adds to it.

    Raises:
        ValueError: If the parameters cannot be.
    """
    asked.check()
    found, silent = look_at(asked.sources or listed_sources())
    news = [message for message in silent if f"silent {message}" not in told]
    for old in [key for key in told if key.startswith("silent ")]:
        if old.removeprefix("silent ") not in silent:
            del told[old]
    told.update({f"silent {message}": "" for message in silent})
    fresh: list[Candidate] = []
    for candidate in found:
        known = recall(candidate.address, candidate.stamp)
        if known and Path(known[0]).exists():
            if _is_open(candidate, known[0], known[1], asked, told):
                news.append(candidate.address)
        elif told.get(candidate.address) != candidate.stamp:
            fresh.append(candidate)
    if any(candidate.is_local for candidate in fresh):
        time.sleep(asked.settle_seconds)
    for candidate in fresh:
        if not candidate.is_local or stamp_of(Path(candidate.address)) == candidate.stamp:
            told[candidate.address] = candidate.stamp
            news.append(candidate.address)  # else it is still being written: at the next look
    return bool(news)


def _is_open(
    candidate: Candidate, path: str, weights: str, asked: Watch, told: dict[str, str]
) -> bool:
    """Tells whether a checkpoint that has been read still needs a flow to be started."""
    try:
        return any(_is_undone(job, weights, asked) for job in asked.jobs(Path(path)))
    except ValueError:  # the flow says why, once
        first = told.get(candidate.address) != candidate.stamp
        told[candidate.address] = candidate.stamp
        return first


def _is_undone(job: Job, weights: str, asked: Watch) -> bool:
    request = job.request
    identity = request.identity(data_content(request.real.dataset))
    if is_scored(identity, weights) or not _may_start(identity, weights, asked):
        return False
    refuse(request)
    return True


def _may_start(identity: str, weights: str, asked: Watch) -> bool:
    """Tells whether no run is under way, and attempts are left."""
    key, attempts = f"{weights[:32]}-{identity[:32]}", asked.attempts
    if asked.here:
        return int(recall(f"attempts {key}", "") or 0) < attempts
    keys = [f"{key}-{attempt}" for attempt in range(1, attempts + 1)]
    only = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=keys))
    with get_client(sync_client=True) as client:
        kinds = [
            run.state.type.name if run.state else "PENDING"
            for run in client.read_flow_runs(flow_run_filter=only)
        ]
    return len(kinds) < attempts and all(kind in ENDED_BADLY for kind in kinds)
