"""Runs that a crash left Running are ended, and those that live are left alone: a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import yaml
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.events import emit_event
from prefect.states import Running

from flows.servers.deploy import OURS as DEPLOYMENTS
from flows.servers.guard import FLOWS, HEARTBEAT, NAME, _last_heartbeat, end_lost_runs, install

pytestmark = pytest.mark.timeout(120)


@task
def at_work() -> None: ...


OURS = "guarded-in-a-test"  # the server has other tests' runs of fid-grid


@flow(name=OURS)
def one_of_ours() -> None: ...


@flow(name="of-another-project")
def of_another_project() -> None: ...


@pytest.fixture
def client(server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def running(client: SyncPrefectClient, what: object = one_of_ours) -> FlowRun:
    return client.create_flow_run(what, state=Running())  # type: ignore[type-var]


def beat(client: SyncPrefectClient, run: FlowRun) -> None:
    """Sends a heartbeat and waits until the server has it."""
    before = _last_heartbeat(client, run)
    emit_event(HEARTBEAT, {"prefect.resource.id": f"prefect.flow-run.{run.id}"})
    deadline = time.monotonic() + 60
    while _last_heartbeat(client, run) == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def state(client: SyncPrefectClient, run: FlowRun) -> str:
    found = client.read_flow_run(run.id).state
    return found.name if found else ""


def test_run_without_a_heartbeat_is_ended_with_its_tasks(client: SyncPrefectClient) -> None:
    lost = running(client)
    held = client.create_task_run(at_work, lost.id, dynamic_key="0", state=Running())
    assert lost.name in end_lost_runs([OURS], look_away=lambda: None)
    assert state(client, lost) == "Crashed"
    found = client.read_task_run(held.id).state
    assert found is not None
    assert found.name == "Crashed"


def test_run_that_beats_is_left_alone_and_so_is_another_projects(client: SyncPrefectClient) -> None:
    alive, foreign = running(client), running(client, of_another_project)
    beat(client, alive)
    lost = end_lost_runs([OURS], look_away=lambda: beat(client, alive))
    assert not {alive.name, foreign.name} & set(lost)
    assert [state(client, run) for run in (alive, foreign)] == ["Running", "Running"]


def test_automation_is_installed_once_however_often(client: SyncPrefectClient) -> None:
    install()
    install()
    (found,) = client.read_automations_by_name(NAME)
    assert found.enabled
    client.delete_automation(found.id)


def test_every_deployed_flow_is_guarded() -> None:
    deployments = yaml.safe_load(DEPLOYMENTS.read_text())["deployments"]
    for deployment in deployments:
        module, _, function = deployment["entrypoint"].rpartition(".")
        assert getattr(__import__(module, fromlist=[function]), function).name in FLOWS
