"""Runs that ask one network of few images each, answered in one call."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ddim_core.networks.denoisers import UNetModel

R = TypeVar("R")


class Joined:
    """A network that several runs ask side by side, each in a thread of its own.

    It answers when all that still run have asked: a network on a CPU runs on batches of one size,
    so that 4 images cost what 128 do. A run gets what it would get alone, to the bit.

    Args:
        network: Whose answer for an image does not depend on its neighbours.
        runs: How many there are.
    """

    def __init__(self, network: UNetModel, runs: int) -> None:
        self.unet = network.unet
        self._network, self._running = network, runs
        self._asked: list[_Question] = []
        self._changing = Lock()

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """As of `UNetModel`."""
        return self._ask(self._network, x_t, t, labels)

    def whole(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """As of `UNetModel`."""
        return self._ask(self._network.whole, x_t, t, labels)

    def leave(self) -> None:
        """Is called once by each run, when it asks no more."""
        with self._changing:
            self._running -= 1
        self._answer_if_all_wait()

    def _ask(self, function: Callable[..., Tensor], *given: Tensor | None) -> Tensor:
        question = _Question(function, [part for part in given if part is not None], Future())
        with self._changing:
            self._asked.append(question)
        self._answer_if_all_wait()
        return question.answer.result()

    def _answer_if_all_wait(self) -> None:
        with self._changing:
            if len(self._asked) < self._running:
                return
            asked, self._asked = self._asked, []
        alike = defaultdict(list)
        for question in asked:
            kinds = tuple((part.dtype, part.shape[1:]) for part in question.given)
            alike[question.function, kinds].append(question)
        for questions in alike.values():
            _answer(questions)


class _Question(NamedTuple):
    function: Callable[..., Tensor]
    given: list[Tensor]
    answer: Future[Tensor]


def _answer(questions: Sequence[_Question]) -> None:
    try:
        parts = zip(*(question.given for question in questions), strict=True)
        said = questions[0].function(*(torch.cat(part) for part in parts))
        sizes = [len(question.given[0]) for question in questions]
        for question, rows in zip(questions, said.split(sizes), strict=True):
            question.answer.set_result(rows)
    except Exception as error:  # it is that of all who asked
        for question in questions:
            if not question.answer.done():
                question.answer.set_exception(error)


def side_by_side(network: UNetModel, runs: Sequence[Callable[[Any], R]]) -> list[R]:
    """Returns what runs return that ask a network, each in a thread of its own, in their order.

    Args:
        network: As of `Joined`.
        runs: Each is given what it asks in the network's place; they share no state.

    Raises:
        Exception: What a run, or the network, raises.
    """
    if len(runs) == 1:
        return [runs[0](network)]
    joined, threads = Joined(network, len(runs)), torch.get_num_threads()

    def followed(run: Callable[[Any], R]) -> R:
        torch.set_num_threads(threads)  # each thread has its own
        try:
            with torch.inference_mode():
                return run(joined)
        finally:
            joined.leave()

    with ThreadPoolExecutor(len(runs), "joined") as pool:  # a thread each: none waits for another
        return list(pool.map(followed, runs))
