"""The searches of one setting: its list by an aim, and between which noise levels it is guided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ddim_core.samplers.name import SamplerName
from ddim_core.tuning.aims import Aim, ToLongRun, ToReference
from ddim_core.tuning.evaluations import Distances, Evaluations
from ddim_core.tuning.intervals import Interval, search_interval
from ddim_core.tuning.judged import joined
from ddim_core.tuning.positions import Positions, Scale, Visits
from ddim_core.tuning.runs import Runs, first_of
from ddim_core.tuning.search import Found, Task, search
from tasks.sampling.guidance import Inside
from tasks.tuning.aims import measure

NEAR = 128  # images that tell by distance where a search by FID begins
ROUNDS = 3  # of an interval, and the list under it


@dataclass(frozen=True)
class Best:
    """The best that was found so far.

    Attributes:
        found: The list, with what all searches up to it tried and spent.
        interval: Noise levels between which it is guided; None is at all.
        values: Of the images that it was tuned on.
    """

    found: Found
    interval: Interval | None
    values: Distances


@dataclass(frozen=True)
class Searching:
    """What the searches of a setting share.

    Attributes:
        name, steps, calls, moves: As of `Task`.
        scale, visits: Where it can ask the network, and does.
        level: The noise level of a timestep; None where no interval is searched.
        runs: Of the images to tune on, guided between two levels.
        inside: Tells of a timestep whether it is guided so.
        looked_at: Lists to look at too.
        place: Where measurements are written down, without the ending.
    """

    name: SamplerName
    steps: int
    calls: int
    moves: tuple[float, ...]
    scale: Scale
    visits: Visits
    level: Callable[[float], float] | None
    runs: Callable[[Interval | None], Runs]
    inside: Callable[[Interval | None], Inside | None]
    looked_at: tuple[Positions, ...]
    place: Path

    def measured(self, by: Aim, interval: Interval | None, kind: str = "") -> Evaluations:
        """Returns what measures lists by an aim under an interval, and writes down."""
        named = kind + (f"-{interval[0]!r}-{interval[1]!r}" if interval else "")
        values = measure(by, self.runs(interval), self.visits, self.inside(interval))
        return Evaluations(values, Path(f"{self.place}{named}.jsonl"))

    def list_of(
        self, by: Aim, interval: Interval | None, budget: float,
        start: Positions | None = None, kind: str = "",
    ) -> Best:  # fmt: skip
        """Searches a list by an aim, under an interval."""
        measured = self.measured(by, interval, kind)

        def show(said: str) -> None:
            bar.n = measured.n_measured
            bar.set_postfix_str(said)

        what = f"tuning {self.name.text} at {self.calls} calls"
        task = Task(self.name, self.steps, self.calls, by.sizes, budget, self.moves)
        looked_at = (*self.looked_at, start) if start else self.looked_at
        moved = start if self.moves else None  # where none is moved, the whole list is bent anew
        with tqdm(desc=what, unit="", disable=None) as bar:
            found = search(task, self.scale, measured, looked_at, show, moved)
        return Best(found, interval, self.values(by, found.positions, interval, kind))

    def values(
        self, by: Aim, positions: Positions, interval: Interval | None, kind: str = ""
    ) -> Distances:
        """Returns an aim's values of a list, under an interval."""
        measured = self.measured(by, interval, kind)
        sampler = self.scale.listed(self.name, positions)
        return joined([measured.of(sampler, self.steps, part) for part in range(len(by.sizes))])


def by_aim(
    searching: Searching, aim: Aim, ends: NDArray[np.float32], chunks: Sequence[range],
    interval: Interval | None, budget: float,
) -> Best:  # fmt: skip
    """Searches a list by an aim; where that is an FID and single positions are moved, few images
    tell by their distance from the long run where to begin.

    Args:
        searching: The setting.
        aim: Of all images.
        ends: Of the long run, [n, ...].
        chunks: Places of the images that the network is asked about at once.
        interval: Noise levels between which all runs are guided.
        budget: Most network calls an image.
    """
    enough = budget >= 2 * searching.calls  # for a candidate of either aim
    if not isinstance(aim, ToReference) or not searching.moves or not enough:
        return searching.list_of(aim, interval, budget)
    to_long = ToLongRun(ends, first_of(chunks, NEAR))
    near = searching.list_of(to_long, interval, budget / 2, None, "-near")
    left = budget - near.found.spent
    return _after(near, searching.list_of(aim, interval, left, near.found.positions))


def narrowed(searching: Searching, aim: Aim, best: Best, budget: float) -> Best:
    """Searches between which noise levels a list is best guided, and then the list under these, in
    turns until the levels stay.

    Args:
        searching: The setting.
        aim: What is made small.
        best: Guided at all levels.
        budget: Most network calls an image, those spent before with them.
    """
    assert searching.level is not None
    noisiest = float(f"{1.01 * searching.level(searching.scale.top):.3g}")  # in few digits

    def under(positions: Positions) -> Callable[[Interval | None], Distances]:
        return lambda interval: searching.values(aim, positions, interval)

    for _ in range(ROUNDS):
        positions = best.found.positions
        sampler = searching.scale.listed(searching.name, positions)
        asked = searching.visits(sampler, searching.steps)
        left = max(0, int((budget - best.found.spent) / searching.calls))
        interval, n_tried = search_interval(
            [searching.level(t) for t in asked.timesteps], noisiest,
            under(positions), best.interval, left,
        )  # fmt: skip
        stays, values = interval == best.interval, searching.values(aim, positions, interval)
        found = replace(
            best.found, distance=float(np.mean(values)), n_tried=best.found.n_tried + n_tried,
            spent=best.found.spent + n_tried * searching.calls,
            finished=best.found.finished and n_tried < left,
        )  # fmt: skip
        best = Best(found, interval, values)
        left_over = budget - found.spent
        if stays or left_over < searching.calls:
            break
        best = _after(best, searching.list_of(aim, interval, left_over, positions))
    return best


def _after(before: Best, best: Best) -> Best:
    """What was found, with what was tried and spent before it."""
    found = replace(
        best.found, n_tried=before.found.n_tried + best.found.n_tried,
        spent=before.found.spent + best.found.spent,
    )  # fmt: skip
    return replace(best, found=found)
