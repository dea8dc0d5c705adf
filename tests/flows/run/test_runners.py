"""Where tasks run: what may be asked for, and that each runner gives the rows of the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from distributed import LocalCluster
from prefect import flow, tags, task
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext, TagsContext
from prefect.futures import wait
from prefect.task_runners import ThreadPoolTaskRunner

from flows.run.runner_names import RUNNERS, require_runner
from flows.run.runners import on_device, task_runner
from tasks.storage import places
from tests.flows.grids import PROJECT, GridRun, lasting
from tests.forked import Forked

WORKER = """
import asyncio, sys
from distributed import Worker

async def work():
    async with Worker(sys.argv[1], nthreads=2) as worker:
        await worker.finished()

asyncio.run(work())
"""


@pytest.mark.parametrize(
    ("runner", "workers", "words"),
    [
        ("fibres", None, "runner is 'fibres'"), ("", None, "runner is ''"),
        ("threads:host:1", None, "only dask and ray take an address"),
        ("dask:tcp://host:8786", 2, "has its own"), ("threads", 0, "workers is 0"),
    ],
)  # fmt: skip
def test_runner_that_cannot_be_is_refused_in_words(
    runner: str, workers: int | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        require_runner(runner, workers)


def test_runner_whose_packages_are_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flows.run.runner_names.find_spec", lambda name: None)
    for name in ("dask", "ray"):
        with pytest.raises(ValueError, match=rf"pip install 'ddim-flows\[{name}\]'"):
            require_runner(name, None)
    for name in set(RUNNERS) - {"dask", "ray"}:
        require_runner(name, 3)


def test_tasks_of_a_device_carry_its_tag_and_gpus_are_asked_of_the_cluster() -> None:
    from dask.base import get_annotations  # type: ignore[attr-defined]
    from prefect_ray.context import RemoteOptionsContext

    with tags("mine"), on_device("dask", "cpu"):
        assert TagsContext.get().current_tags == {"mine"}
        assert not get_annotations()
    with on_device("dask:tcp://host:1", "cuda"):
        assert TagsContext.get().current_tags == {"ddim-cuda"}
        assert get_annotations() == {"resources": {"GPU": 1}}
    with on_device("ray", "cuda:1"):
        assert RemoteOptionsContext.get().current_remote_options == {"num_gpus": 1}
    assert not TagsContext.get().current_tags
    assert not get_annotations()


def test_named_runner_takes_the_flows_tasks_and_is_gone_afterwards(server: str) -> None:
    @task
    def nothing() -> None: ...

    @flow
    def asks() -> list[str]:
        names = []
        with task_runner("threads", 3):
            context = FlowRunContext.get()
            assert context is not None
            names.append(f"{context.task_runner._max_workers}")  # type: ignore[attr-defined]
            nothing.submit().result()
        context = FlowRunContext.get()
        assert context is not None
        return [*names, f"{context.task_runner._max_workers}"]  # type: ignore[attr-defined]

    within, after = asks()
    assert within == "3"
    assert after != "3"


@pytest.mark.timeout(120)
def test_a_task_without_a_card_runs_while_every_card_has_one(server: str, tmp_path: Path) -> None:
    scored = tmp_path / "scored"

    @task
    def draws(name: str) -> tuple[int, bool]:
        (tmp_path / name).touch()
        ends = time.monotonic() + 60
        while not scored.exists() and time.monotonic() < ends:
            time.sleep(0.05)
        return os.getpid(), scored.exists()

    @task
    def scores() -> int:
        while not all((tmp_path / name).exists() for name in "ab"):
            time.sleep(0.05)
        scored.touch()
        return os.getpid()

    @flow
    def asks() -> tuple[list[tuple[int, bool]], int]:
        with task_runner("processes", 1, "cpu:0,cpu:1"):
            with on_device("processes", "cpu:0,cpu:1"):
                drawn = [draws.submit(name) for name in "ab"]
            score = scores.submit()
            return [one.result() for one in drawn], score.result()

    drawn, scorer = asks()
    assert [beside for _, beside in drawn] == [True, True]
    assert len({scorer, *(drawer for drawer, _ in drawn)}) == 3


def test_limit_on_a_devices_tag_keeps_its_tasks_apart(server: str) -> None:
    device = f"cuda{uuid4()}"  # a limit of our own on a server shared with other tests
    spans: list[tuple[float, float]] = []

    @task
    def on_the_gpu() -> None:
        began = time.monotonic()
        time.sleep(0.2)
        spans.append((began, time.monotonic()))

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=2))
    def asks() -> None:
        with on_device("threads", device):
            wait([on_the_gpu.submit(), on_the_gpu.submit()])

    with get_client(sync_client=True) as client:
        client.create_concurrency_limit(tag=f"ddim-{device}", concurrency_limit=1)
    asks()
    (_, first_ends), (second_begins, _) = sorted(spans)
    assert second_begins >= first_ends


@pytest.mark.timeout(300)
def test_dask_cluster_gives_the_rows_that_threads_do_if_it_has_the_flows_store(
    run_grid: Callable[..., GridRun], wipe: Callable[[], None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    @flow
    def asks(runner: str) -> None:
        with task_runner(runner, None):
            pytest.fail("nothing may run there")

    asked = {"seed": 707, "etas": [0.0]}
    threads = lasting(run_grid(**asked).rows)
    wipe()
    (tmp_path / "worker.py").write_text(WORKER)
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        Forked(
            tmp_path / "worker.py", (address,), PROJECT, os.environ, tmp_path / "worker.log"
        )  # which ends with the cluster
        runner = f"dask:{address}"
        run = run_grid(workers=None, runner=runner, **asked)
        dask = lasting(run.rows)
        monkeypatch.setattr(places, "DATA_URL", "memory://elsewhere")
        with pytest.raises(ValueError, match="start them with the flow's DDIM_DATA"):
            asks(runner)
    assert run.computed["sample-shard"] == 3
    assert dask == threads
