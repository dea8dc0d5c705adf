"""Processes for cards, and others beside them for what needs none."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import RunInput
from prefect.context import TagsContext
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner


class BesideCards(TaskRunner[Any]):
    """One process a card for the tasks that carry a tag, and a pool of processes for all others.

    A score then waits for no card, and no process holds the networks of a card that is not its own.

    Args:
        tag: Of the tasks that take a card.
        cards: Processes for these.
        others: Processes for the others, each begun when it is first needed.
    """

    def __init__(self, tag: str, cards: int, others: int) -> None:
        super().__init__()
        self._of = tag, cards, others
        self._pools: dict[bool, Any] = {
            True: ProcessPoolTaskRunner(max_workers=cards),
            False: ProcessPoolTaskRunner(max_workers=others),
        }
        self._open = ExitStack()

    def duplicate(self) -> BesideCards:
        """Returns another one like this, not started."""
        return BesideCards(*self._of)

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> PrefectFuture[Any]:
        """Submits a task to the pool that it is for."""
        pool = self._pools[self._of[0] in TagsContext.get().current_tags]
        submitted: PrefectFuture[Any] = pool.submit(task, parameters, wait_for, dependencies)
        return submitted

    def __enter__(self) -> BesideCards:
        super().__enter__()
        for pool in self._pools.values():
            self._open.enter_context(pool)
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)
        super().__exit__(*error)
