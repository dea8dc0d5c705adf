"""Sequential allocation: images go to the cells whose rank is still open.

Cells race: each round every open cell gets as many images as all the others, the pairs of open
cells are tested, and a cell stops as soon as its rank is decided. The confidence holds for the
whole race, however many rounds it takes: the error allowed, 1 - confidence, is shared equally by
the R rounds that there can be (a union bound over the looks), and within a round by its tests.

- The best cell: one-sided tests at (1 - confidence) / (R (k - 1)). A wrong decision needs the truly
  best cell to be beaten, in one of R rounds by one of k - 1 others; so with at least the asked
  confidence the best cell is never stopped, and what alone is left is it.
- The Pareto front of FID against network calls: two-sided tests of all k (k - 1) / 2 pairs, at
  (1 - confidence) / (R k (k - 1) / 2) each; all statements hold together.

Cells are compared by what decides. Where that is FID it is FID_inf where every cell has it, since
the bias of N images differs between cells and moves with N; else FID at the N of the round.

Where the budget ends before the race, what is left of it completes the cells of the lowest
distances: of these the best is told by rows that a full grid would have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from ddim_core.decisions.compare import difference
from ddim_core.decisions.measure import FID, Measure, measure_of
from ddim_core.decisions.row import CellRow
from ddim_core.statistics.paired import PairedDifference

GROWTH = 1.5  # of a round: fewer looks would stop cells later, more would cost confidence
Goal = Literal["best", "front"]
Status = Literal["best", "front", "beaten", "open", "failed"]
# Scores the cells (by place) at n images each; cells that are missing in the answer have failed.
Score = Callable[[Sequence[int], int], Mapping[int, CellRow]]


@dataclass(frozen=True)
class Rules:
    """What is to be decided, how surely, and with how many images.

    Attributes:
        goal: `best`, the cell of the best value; `front`, the cells that no cell of as many or
            fewer network calls beats.
        confidence: In (0, 1), of all decisions together.
        budget: Most images of all cells together.
        first: Images of every cell in the first round.
        most: Most images of a cell.
        step: Rounds are multiples of it, so that whole shards are drawn.
    """

    goal: Goal
    confidence: float
    budget: int
    first: int
    most: int
    step: int = 1

    def __post_init__(self) -> None:
        if not 0.0 < self.confidence < 1.0:
            raise ValueError(f"confidence is {self.confidence}; it must lie between 0 and 1")
        if not 2 <= self.first <= self.most:
            raise ValueError(
                f"the first round has {self.first} images a cell; it must have 2 to {self.most}"
            )

    def counts(self) -> list[int]:
        """Images that an open cell has after each round: half as many again, up to the most."""
        counts = [self.first]
        while counts[-1] < self.most:
            wanted = max(int(GROWTH * counts[-1]), counts[-1] + 1)
            counts.append(min(-(-wanted // self.step) * self.step, self.most))
        return counts

    def level(self, n_cells: int) -> float:
        """The one-sided level of one test of one round."""
        tests = n_cells - 1 if self.goal == "best" else n_cells * (n_cells - 1)
        return (1.0 - self.confidence) / len(self.counts()) / max(tests, 1)


@dataclass(frozen=True)
class Ruling:
    """How a cell came out.

    Attributes:
        status: `best` or `front` (decided), `beaten`, `open` (not told apart from the others that
            are open), or `failed`.
        n_images: What it got.
        beaten_by: Place of the cell that beats it (of these the one by the widest margin).
        test: Its value minus that cell's, when it was decided.
    """

    status: Status
    n_images: int
    beaten_by: int | None = None
    test: PairedDifference | None = None


@dataclass(frozen=True)
class Outcome:
    """A finished race.

    Attributes:
        rulings: Of each cell, by place.
        decided: Whether the goal is reached at the asked confidence.
        leader: Place of the cell with the best value among those not beaten (where the budget
            ended the race, among those completed); None if all failed.
        images, images_full: Drawn in all, and what a full grid draws.
        rounds: Looks taken, of how many there could be.
        measure: What cells were compared by in the last round.
    """

    rulings: tuple[Ruling, ...]
    decided: bool
    leader: int | None
    images: int
    images_full: int
    rounds: tuple[int, int]
    measure: Measure


def allocate(nfe: Sequence[int], score: Score, rules: Rules, measure: Measure = FID) -> Outcome:
    """Races cells to the end.

    Args:
        nfe: Network calls an image of each cell; k cells.
        score: Extends cells to n images and returns their rows.
        rules: What ends the race.
        measure: What decides.

    Raises:
        ValueError: If the budget does not even pay for the first round, or a row has no value of
            what decides.
    """
    k = len(nfe)
    if rules.budget < k * rules.first:
        raise ValueError(
            f"budget is {rules.budget} images; the first round alone takes {k} cells times "
            f"{rules.first} = {k * rules.first}"
        )
    race = _Race(nfe, rules, measure)
    for n in rules.counts():
        active = race.active()
        if len(active) < 2 and race.looks:
            break
        left = rules.budget - sum(race.images)
        if left < len(active) * (n - race.n):
            leaders = race.lowest(active)[: left // (rules.most - race.n)]
            if leaders and rules.goal == "best":
                race.complete(leaders, score(leaders, rules.most))
                break
            n = race.n + left // max(len(active), 1)
        if n <= race.n:
            break
        race.look(active, n, score(active, n))
    return race.outcome()


class _Race:
    """The state of a race between two looks."""

    def __init__(self, nfe: Sequence[int], rules: Rules, measure: Measure) -> None:
        self.nfe, self.rules = nfe, rules
        self.asked = self.measure = measure
        self.n, self.looks = 0, 0
        self.images = [0] * len(nfe)
        self.rows: dict[int, CellRow] = {}
        self.failed: set[int] = set()
        self.completed: list[int] = []
        # beats[j, i]: the test by which i was found worse than j
        self.beats: dict[tuple[int, int], PairedDifference] = {}

    def look(self, active: Sequence[int], n: int, rows: Mapping[int, CellRow]) -> None:
        self.n, self.looks = n, self.looks + 1
        self.failed |= set(active) - set(rows)
        for i in rows:
            self.images[i] = n
        self.rows |= rows
        unbiased = measure_of(self.asked.unbiased or self.asked.name)
        has_it = all(unbiased.is_known(row) for row in rows.values())
        self.measure = unbiased if has_it else self.asked
        if not self.measure.has_intervals(list(rows.values())):
            return  # nothing can be decided
        level = self.rules.level(len(self.nfe))
        for i, j in combinations(rows, 2):
            test = difference(rows[i], rows[j], self.measure)
            if test.p_value / 2.0 < level:
                i_is_worse = (test.value > 0.0) == self.measure.lower_is_better
                better, worse = (j, i) if i_is_worse else (i, j)
                found = test if i_is_worse else difference(rows[j], rows[i], self.measure)
                self.beats.setdefault((better, worse), found)

    def lowest(self, cells: Sequence[int]) -> list[int]:
        """The unbeaten of some cells, the best value first."""
        unbeaten = [i for i in cells if i in self.rows and not self.beaten(i)]
        return sorted(unbeaten, key=lambda i: self.measure.cost(self.rows[i]))

    def complete(self, cells: Sequence[int], rows: Mapping[int, CellRow]) -> None:
        """Takes the final rows of cells that no further look will test."""
        self.failed |= set(cells) - set(rows)
        for i in rows:
            self.images[i] = self.rules.most
        self.rows |= rows
        self.completed = list(rows)

    def rivals(self, i: int) -> list[int]:
        """The cells that decide about i: any, or those that cost no more."""
        others = [j for j in range(len(self.nfe)) if j != i and j not in self.failed]
        return [j for j in others if self.rules.goal == "best" or self.nfe[j] <= self.nfe[i]]

    def beaten(self, i: int) -> bool:
        return any((j, i) in self.beats for j in self.rivals(i))

    def open_rivals(self, i: int) -> list[int]:
        """Unbeaten rivals that are not yet known to be worse than i."""
        return [j for j in self.rivals(i) if not self.beaten(j) and (i, j) not in self.beats]

    def active(self) -> list[int]:
        """Cells that are not decided, and the rivals against which they are not."""
        found: set[int] = set()
        for i in range(len(self.nfe)):
            if i in self.failed or self.beaten(i):
                continue
            against = self.open_rivals(i)
            found |= {i, *against} if against else set()
        everything = [i for i in range(len(self.nfe)) if i not in self.failed]
        return sorted(found) if self.looks else everything

    def outcome(self) -> Outcome:
        rulings = tuple(self._ruling(i) for i in range(len(self.nfe)))
        left = [i for i in self.rows if rulings[i].status not in ("beaten", "failed")]
        leader = min(self.completed, key=lambda i: self.asked.cost(self.rows[i]), default=None)
        if leader is None and left:
            leader = self.lowest(left)[0]
        return Outcome(
            rulings=rulings,
            decided=bool(left) and all(r.status != "open" for r in rulings),
            leader=leader,
            images=sum(self.images),
            images_full=len(self.nfe) * self.rules.most,
            rounds=(self.looks, len(self.rules.counts())),
            measure=self.measure,
        )

    def _ruling(self, i: int) -> Ruling:
        if i in self.failed:
            return Ruling("failed", self.images[i])
        winners = [j for j in self.rivals(i) if (j, i) in self.beats]
        if winners:
            by = max(winners, key=lambda j: abs(self.beats[j, i].value))
            return Ruling("beaten", self.images[i], by, self.beats[by, i])
        status: Status = "open" if self.open_rivals(i) else self.rules.goal
        return Ruling(status, self.images[i])
