"""Runs that a crash left Running: found by their missing heartbeats, and ended as Crashed.

While a flow runs, its process sends a heartbeat every 30 s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY).
While the server runs, an automation ends a run whose heartbeats stop. What died while the server
was down, the automation never hears of: that is looked for once, at the start of a server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.filters import EventFilter
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.states import Crashed

NAME = "ddim: end runs whose process has gone"
FLOWS = ("fid-grid", "until-decided", "snapshots", "swiss-roll", "train-toy", "paper", "lora-style",
         "lora-subject", "lora-score", "train-base", "checkpoint-watch", "tune")  # fmt: skip
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = tuple(
    f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")
)
SILENCE_SECONDS = 90
MESSAGE = "no heartbeat for 90 s: the flow's process has gone; run it again, nothing done is lost"


def install() -> None:
    """Puts the automation on the server, in place of an older one of its name."""
    trigger = EventTrigger(
        after={HEARTBEAT},
        expect={HEARTBEAT, *ENDS},
        match={"prefect.resource.id": "prefect.flow-run.*"},  # type: ignore[arg-type]
        match_related={  # type: ignore[arg-type]
            "prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS),
        },
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENCE_SECONDS),
    )  # fmt: skip
    action = ChangeFlowRunState(
        state=StateType.CRASHED, name="Crashed", message=MESSAGE, force=False
    )
    with get_client(sync_client=True) as client:
        for older in client.read_automations_by_name(NAME):
            client.delete_automation(older.id)
    Automation(name=NAME, description=MESSAGE, trigger=trigger, actions=[action]).create()


def _wait_for_heartbeats() -> None:
    time.sleep(SILENCE_SECONDS)


def end_lost_runs(
    flows: Sequence[str] = FLOWS,
    look_away: Callable[[], None] = _wait_for_heartbeats,
) -> list[str]:
    """Ends the runs of our flows that send no heartbeat while we look away; returns their names.

    Heartbeats are told apart by their identity, not by their time, so that no clock matters.
    Returns at once if no run is under way.
    """
    with get_client(sync_client=True) as client:
        before = {run.id: _last_heartbeat(client, run) for run in _under_way(client, flows)}
        if before:
            look_away()
        lost = [
            run
            for run in _under_way(client, flows)
            if run.id in before and _last_heartbeat(client, run) == before[run.id]
        ]
        for run in lost:
            _end(client, run)
        return [run.name for run in lost]


def _under_way(client: SyncPrefectClient, flows: Sequence[str]) -> list[FlowRun]:
    ours = FlowFilter.model_validate({"name": {"any_": list(flows)}})
    states = {"state": {"type": {"any_": ["RUNNING", "CANCELLING"]}}}
    return client.read_flow_runs(
        flow_filter=ours, flow_run_filter=FlowRunFilter.model_validate(states), limit=200
    )


def _last_heartbeat(client: SyncPrefectClient, run: FlowRun) -> Any:
    """The identity of a run's newest heartbeat, None if it never sent one."""
    wanted = {"event": {"name": [HEARTBEAT]}, "resource": {"id": [f"prefect.flow-run.{run.id}"]}}
    page = client.read_events(EventFilter.model_validate(wanted), limit=1)
    return page.events[0].id if page.events else None


def _end(client: SyncPrefectClient, run: FlowRun) -> None:
    """Ends a run, and its tasks first, which may hold slots of a concurrency limit."""
    of_run = FlowRunFilter.model_validate({"id": {"any_": [str(run.id)]}})
    running = TaskRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})
    while tasks := client.read_task_runs(
        flow_run_filter=of_run, task_run_filter=running, limit=200
    ):
        for task in tasks:
            client.set_task_run_state(task.id, Crashed(message=MESSAGE), force=True)
    client.set_flow_run_state(run.id, Crashed(message=MESSAGE), force=True)
