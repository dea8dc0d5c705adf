"""The search for the list whose short run ends nearest to the long one: coordinate descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from ddim_core.samplers.name import SamplerName
from ddim_core.tuning.evaluations import Evaluations
from ddim_core.tuning.positions import SPACINGS, Positions, Scale

MOVES = (0.06, 0.03, 0.015, 0.007, 0.003, 0.001)  # of the scale, one position at a time
BENDS = ((0.1, 0.03, 0.5), (0.05, 0.015, 0.25))  # of both ends and of rho, of a whole list
LOST = 2.0  # standard errors above the best at which a candidate is given up
LEAST_GAIN = 1e-4  # of the distance: less is not worth a list of its own


@dataclass(frozen=True)
class Task:
    """What is searched for.

    Attributes:
        sampler: Without its list.
        steps, calls: S, and the network calls that they make.
        chunks: Images of each chunk that it is tuned on.
        budget: Most network calls on an image, over all candidates: one candidate seen on all
            images takes `calls` of it.
        moves: Of single positions, as shares of the scale; none leaves the best list that two ends
            and rho make.
    """

    sampler: SamplerName
    steps: int
    calls: int
    chunks: tuple[int, ...]
    budget: float
    moves: tuple[float, ...] = MOVES


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        positions: Of its list, on the scale.
        distance: Its figure on the images that it was tuned on: of an aim, as a distance.
        start, start_distance: The list that it started from, and its figure.
        bent_distance: Of the best list with three parameters, two ends and rho.
        n_tried: Candidates that were looked at.
        spent: Of the budget.
        finished: No move asked for helped any more; False where the budget was spent before.
    """

    positions: Positions
    distance: float
    start: Positions
    start_distance: float
    bent_distance: float
    n_tried: int
    spent: float
    finished: bool


class _SpentError(Exception):
    """The budget is spent."""


def search(
    task: Task,
    scale: Scale,
    evaluations: Evaluations,
    known: Sequence[Positions] = (),
    said: Callable[[str], None] = lambda _: None,
    start: Positions | None = None,
) -> Found:
    """Finds the list whose run is best by an aim's figure, as how far it ends from the long run,
    over common noise.

    First the best of some spacings; then its two ends and rho are bent; then each position is moved
    by itself, in ever smaller steps, until none helps. A candidate is looked at on a chunk of
    images after another, and given up where it is behind the best by two standard errors of their
    paired difference.

    Args:
        task: What is searched for.
        scale: Where positions can lie.
        evaluations: Measures, and remembers.
        known: Other lists to look at, right after the spacings.
        said: Is told now and then how far it is.
        start: The list whose positions are moved, instead of spacings and what is bent of them.

    Raises:
        ValueError: If no spacing of so many steps fits, or the budget is too small for one
            candidate.
    """
    return _Search(task, scale, evaluations, known, said).run(start)


class _Search:
    def __init__(
        self,
        task: Task,
        scale: Scale,
        evaluations: Evaluations,
        known: Sequence[Positions],
        said: Callable[[str], None],
    ) -> None:
        self._known = known
        self._task, self._scale, self._evaluations, self._said = task, scale, evaluations, said
        self._seen: set[tuple[Positions, int]] = set()
        self._tried: set[Positions] = set()
        self._spent = 0.0
        self._ended = False
        self._best: Positions = ()

    def run(self, given: Positions | None) -> Found:
        task, finished = self._task, True
        if task.budget < task.calls:
            raise ValueError(
                f"budget is {task.budget:g} network calls an image; one candidate of "
                f"{task.sampler.text} takes {task.calls}"
            )
        start: Positions = ()
        bent: Positions = ()
        try:
            start = bent = self._started([given] if given else self._spacings())
            shape = None if given else self._shape()
            for positions in self._known:
                self._try(positions)
            if shape:
                self._bend(shape)
            bent = self._best
            for move in task.moves:
                self._move(move)
        except _SpentError:
            finished = False
            start, bent = start or self._best, bent or self._best
        self._ended = True
        if not math.isfinite(self._mean(self._best)):
            raise ValueError(
                f"every list of {task.sampler.text} that was tried ends in numbers that are not "
                "finite; take another sampler or number format"
            )
        return Found(
            self._best, self._mean(self._best), start, self._mean(start), self._mean(bent),
            len(self._tried), self._spent, finished,
        )  # fmt: skip

    def _spacings(self) -> list[Positions]:
        found = (self._scale.spaced(self._task.steps, *spacing) for spacing in SPACINGS)
        fitting = list(dict.fromkeys(positions for positions in found if positions))
        if not fitting:
            raise ValueError(
                f"{self._task.steps} steps do not fit on {self._scale.top + 1:g} timesteps"
            )
        return fitting

    def _started(self, fitting: Sequence[Positions]) -> Positions:
        self._best = fitting[0]
        self._tried.add(self._best)
        self._mean(self._best)
        for positions in fitting:
            self._try(positions)
        return self._best

    def _bend(self, shape: tuple[float, ...]) -> None:
        """Both ends and rho of the whole list, from the shape of the best spacing."""
        if self._task.steps < 2:
            return
        for by in BENDS:
            better = True
            while better:
                better = False
                for i, sign in product(range(3), (1, -1)):
                    other = tuple(v + sign * by[i] * (j == i) for j, v in enumerate(shape))
                    high, low, rho = other
                    if not (0.0 <= low < high <= 1.0 and 0.2 <= rho <= 9.0):
                        continue
                    positions = self._scale.spaced(self._task.steps, high, low, rho)
                    if positions and self._try(positions):
                        shape, better = other, True

    def _shape(self) -> tuple[float, ...]:
        found = {self._scale.spaced(self._task.steps, *spacing): spacing for spacing in SPACINGS}
        return found[self._best]

    def _move(self, move: float) -> None:
        """Each position by itself, as far as it helps."""
        by = max(move * self._scale.top, 1.0 if self._scale.whole else 0.0)
        better = True
        while better:
            better = False
            for i, sign in product(range(self._task.steps), (1, -1)):
                while self._try(self._moved(i, sign * by)):
                    better = True
        self._said(f"moves of {by:.3g}: {self._mean(self._best):.4f}")

    def _moved(self, i: int, by: float) -> Positions | None:
        return self._scale.settled([u + by * (j == i) for j, u in enumerate(self._best)])

    def _try(self, positions: Positions | None) -> bool:
        """Whether a candidate is nearer than the best, which it then is."""
        if positions is None or positions in self._tried:
            return False
        self._tried.add(positions)
        if self._is_nearer(positions):
            self._best = positions
            return True
        return False

    def _is_nearer(self, positions: Positions) -> bool:
        if positions == self._best:
            return False
        apart: list[float] = []
        for chunk in range(len(self._task.chunks)):
            ours, theirs = self._of(positions, chunk), self._of(self._best, chunk)
            if not np.isfinite(theirs).all():
                return bool(np.isfinite(ours).all())
            apart.extend(ours - theirs)
            spread = float(np.std(apart, ddof=1)) if len(apart) > 1 else 0.0
            if np.mean(apart) > LOST * spread / math.sqrt(len(apart)):
                return False
        return float(np.mean(apart)) < -LEAST_GAIN * self._mean(self._best)

    def _of(self, positions: Positions, chunk: int) -> np.ndarray:
        key = (positions, chunk)
        if key not in self._seen:
            task = self._task
            per_chunk = task.calls * task.chunks[chunk] / sum(task.chunks)
            over = self._spent + per_chunk > task.budget + 1e-9
            if over and positions != self._best and not self._ended:
                raise _SpentError
            self._spent += per_chunk
            self._seen.add(key)
        sampler = self._scale.listed(self._task.sampler, positions)
        return self._evaluations.of(sampler, self._task.steps, chunk)

    def _mean(self, positions: Positions) -> float:
        chunks: Iterator[np.ndarray] = (
            self._of(positions, chunk) for chunk in range(len(self._task.chunks))
        )
        return float(np.mean(np.concatenate(list(chunks))))
