"""Where a flow's tasks run, and how many at once: threads, processes, or a Dask or Ray cluster.

Results are the same bits everywhere on CPUs of one kind: a runner only moves the work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import cpu_count
from typing import Any

from prefect import Flow, tags
from prefect.context import FlowRunContext
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from ddim_core.common.checks import require_at_least
from ddim_core.devices.names import CPU, is_card, kind_of
from flows.run.beside_cards import BesideCards
from flows.run.runner_names import is_elsewhere, parts_of, require_runner
from tasks.machine.device import cards_of
from tasks.machine.worker import where_results_lie
from tasks.storage import places


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


@contextmanager
def task_runner(runner: str, workers: int | None, device: str = CPU) -> Iterator[None]:
    """Submits the tasks of the flow run to the named runner; to its own if nothing is named.

    Raises:
        ValueError: If the runner cannot be, or its workers keep results elsewhere.

    Args:
        runner: threads, processes, dask or ray; the last two, with `:ADDRESS`, on a cluster that
            is there (`dask:tcp://host:8786`, `ray:ray://host:10001`), else on one of this
            machine that ends with the flow.
        workers: Tasks at once; None is one a core. On cards, processes are one a card, each of
            which holds networks of its own there, and so many more for what needs no card; Dask's
            workers are one a card.
        device: What the flow works on.
    """
    require_runner(runner, workers)
    context = FlowRunContext.get()
    if context is None or (runner == "threads" and workers is None):
        yield
        return
    with (
        _made(runner, workers, device) as chosen,
        context.model_copy(update={"task_runner": chosen}),
    ):
        if is_elsewhere(runner):
            _require_our_store(runner)
        yield


@contextmanager
def on_device(runner: str, device: str) -> Iterator[None]:
    """Marks the tasks submitted inside as work for a card; on a CPU it marks nothing.

    Whatever the runner, a task takes one card for itself when it runs (`tasks.machine.device`).
    Their tag, `ddim-` and the kind of device, can be given a limit on the Prefect server, which
    each of them then asks for a slot. On a Dask cluster they need a worker with the resource `GPU`
    (`dask worker --resources GPU=1`), on Ray a free GPU. Clusters are untested on GPUs.
    """
    if not is_card(device):
        yield
        return
    name, _ = parts_of(runner)
    with ExitStack() as marks:
        marks.enter_context(tags(_tag_of(device)))
        if name == "dask":
            from dask.base import annotate

            marks.enter_context(annotate(resources={"GPU": 1}))
        if name == "ray":
            from prefect_ray.context import remote_options

            marks.enter_context(remote_options(num_gpus=1))
        yield


def _require_our_store(runner: str) -> None:
    theirs, ours = where_results_lie.submit().result(), places.data_url()
    if theirs != ours:
        raise ValueError(
            f"the workers of runner {runner!r} keep results in {theirs!r} and the flow in "
            f"{ours!r}; start them with the flow's DDIM_DATA"
        )


def _tag_of(device: str) -> str:
    return f"ddim-{kind_of(device)}"


def _made(runner: str, asked: int | None, device: str) -> Any:
    name, address = parts_of(runner)
    here = asked or cpu_count() or 1
    if name == "threads":
        return ThreadPoolTaskRunner(max_workers=here)
    if name == "processes" and is_card(device):
        return BesideCards(_tag_of(device), len(cards_of(device)), here)
    if name == "processes":
        return ProcessPoolTaskRunner(max_workers=here)
    if name == "dask":
        from prefect_dask.task_runners import DaskTaskRunner

        local = {"n_workers": here, "threads_per_worker": 1, "host": "127.0.0.1",
                 "dashboard_address": None}  # fmt: skip
        if is_card(device):  # scores beside it
            local |= {"n_workers": asked or len(cards_of(device)), "threads_per_worker": 2,
                      "resources": {"GPU": 1}}  # fmt: skip
        return DaskTaskRunner(address=address) if address else DaskTaskRunner(cluster_kwargs=local)
    from prefect_ray.task_runners import RayTaskRunner

    if address:
        return RayTaskRunner(address=address, init_kwargs={"log_to_driver": False})
    cluster = {"num_cpus": here, "include_dashboard": False, "log_to_driver": False,
               "address": "local", "_node_ip_address": "127.0.0.1"}  # fmt: skip
    return RayTaskRunner(init_kwargs=cluster)
