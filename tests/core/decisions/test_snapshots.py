"""Snapshots at their own best settings, on distances whose truth is known: what a race over all
cells may claim, what a fixed setting would have picked, and what it saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ddim_core.decisions.best import rank
from ddim_core.decisions.checkpoints.snapshots import SnapshotRanking, rank_snapshots, stopping
from ddim_core.decisions.measure import FID, MEASURES, Measure
from ddim_core.decisions.race import Outcome, Rules, allocate
from ddim_core.decisions.row import CellRow
from tests.core.decisions.test_race import Cells

MOST, FIRST = 2048, 256
PLANNED = Rules("best", 0.95, 10**9, FIRST, MOST).counts()
Truth = Sequence[Sequence[float]]  # [snapshot][setting]


class Snapshots:
    """The cells of several snapshots, in their order; remembers every look."""

    def __init__(self, truth: Truth, seed: int = 0, **fields: Any) -> None:
        self.truth = np.asarray(truth, float)
        self.cells = Cells(self.truth.ravel().tolist(), seed)
        self.of = [s for s, settings in enumerate(truth) for _ in settings]
        self.looks: list[dict[int, CellRow]] = []
        self.fields = fields

    def __call__(self, cells: Sequence[int], n: int) -> Mapping[int, CellRow]:
        n_settings = self.truth.shape[1]
        self.looks.append({
            i: replace(
                row, cell_digest=str(i), steps=10 * (i % n_settings + 1), eta=0.0, variance="eta",
                checkpoint=f"step-{self.of[i]}", weights_digest=f"{self.of[i]}" * 9,
                training_step=100 * self.of[i], nfe=1, **self.fields,
            )
            for i, row in self.cells(cells, n).items()
        })  # fmt: skip
        return self.looks[-1]

    def n_of(self, i: int) -> int:
        """Images that a cell got."""
        return max(look[i].n_images for look in self.looks if i in look)

    @property
    def worse(self) -> np.ndarray:
        """[snapshot, setting] how much worse each cell is than the best, in truth."""
        return np.asarray(self.truth - self.truth.min())


def raced(world: Snapshots, budget: int = 0) -> tuple[SnapshotRanking, Outcome]:
    k = len(world.of)
    rules = Rules("best", 0.95, budget or k * MOST, FIRST, MOST)
    outcome = allocate([1] * k, world, stopping(rules))
    return rank_snapshots(world.looks, world.of, rules, FID, outcome.leader), outcome


def whole(world: Snapshots, measure: Measure = FID) -> SnapshotRanking:
    world(range(len(world.of)), MOST)
    rules = Rules("best", 0.95, len(world.of) * MOST, MOST, MOST)
    return rank_snapshots(world.looks, world.of, rules, measure, None)


WORLDS: dict[str, Truth] = {
    "all equal": np.zeros((3, 3)).tolist(),
    "two equal bests": [[0.0, 0.5, 3.0], [0.4, 0.0, 3.0], [0.9, 1.0, 1.1]],
    "a slope": np.linspace(0.0, 1.0, 9).reshape(3, 3).tolist(),
}


@pytest.mark.parametrize("name", list(WORLDS))
def test_all_that_a_race_claims_holds_together_through_all_its_looks(name: str) -> None:
    draws, missed, told = 40, 0, 0
    for seed in range(draws):
        world = Snapshots(WORLDS[name], seed)
        found, outcome = raced(world, budget=9 * MOST // 2)
        worse = world.worse.ravel()
        cells = [found.cells[str(i)] for i in range(9)]
        stopped = [i for i, ruling in enumerate(outcome.rulings) if ruling.status == "beaten"]
        looked = [i for i in stopped if world.n_of(i) in PLANNED]
        assert not any(cells[i].may_be_best for i in looked)  # it stops none for less than is shown
        counts = {world.n_of(i) for i in range(9)}  # FID depends on them
        assert found.measure.name == ("fid" if len(counts) == 1 else "fid_inf")
        right = all(one.low <= w <= one.high for one, w in zip(cells, worse, strict=True))
        right &= all(one.may_be_best or w > 0.0 for one, w in zip(cells, worse, strict=True))
        for one, own in zip(found.snapshots, world.worse, strict=True):
            right &= one.behind.low <= own.min() <= one.behind.high
        for setting, own in zip(found.settings, world.truth.T, strict=True):
            right &= bool(set(np.flatnonzero(own == own.min())) & set(setting.picks))
        missed += not right
        told += sum(not one.may_be_best for one in cells)
    # 5 % are allowed, with a standard error of 3.4 %; Bonferroni's bounds are wider than that.
    assert missed <= 0.05 * draws + 3 * np.sqrt(0.05 * 0.95 * draws)
    assert (told > 2 * draws) == (name != "all equal")  # it is not silence that is right


def test_the_intervals_of_values_hold_together_whichever_setting_is_best() -> None:
    truth = [[3.0, 3.0, 3.1], [3.2, 3.3, 3.3]]
    for seed in range(20):
        found, _ = raced(Snapshots(truth, seed))
        for one, own in zip(found.snapshots, truth, strict=True):
            assert one.value_low <= min(own) <= one.value_high
            assert one.value_high - one.value_low < 3.0
    near_0, _ = raced(Snapshots([[0.01, 3.0], [0.02, 3.0]]))
    assert {one.value_low for one in near_0.snapshots} == {0.0}  # a distance


def test_one_look_at_full_grids_says_what_a_grids_own_ranking_says() -> None:
    world = Snapshots([[3.0, 3.1], [3.05, 4.0], [5.0, 6.0]])
    found = whole(world)
    grids = rank(list(world.looks[0].values()), FID).standings
    assert [(one.low, one.high) for one in found.cells.values()] == [
        pytest.approx((one.low, one.high)) for one in grids
    ]
    assert found.measure == FID


def test_the_cell_that_a_race_leads_to_is_first_and_its_snapshots_setting() -> None:
    """By chance a cell of fewer images may have a lower value, or one that was not completed."""
    world = Snapshots([[3.0, 3.0], [3.0, 3.0]])
    rules = Rules("best", 0.95, 10**6, FIRST, MOST)
    world(range(4), FIRST)
    world([0, 1, 2], rules.counts()[1])
    values = {i: world.looks[-1].get(i, world.looks[0][i]).fid_inf or 0.0 for i in range(4)}
    last = max([0, 1], key=lambda i: values[i])
    found = rank_snapshots(world.looks, world.of, rules, FID, last)
    assert (found.best, found.order, found.leader) == (0, [0, 1], str(last))
    assert found.snapshots[0].cell_digest == str(last)
    # The other snapshot's best is of those that went on, whatever the one says that did not.
    world.looks[0][3] = replace(world.looks[0][3], fid_inf=values[2] - 9.0)
    other = rank_snapshots(world.looks, world.of, rules, FID, 2).snapshots[1]
    assert (other.cell_digest, other.n_images) == ("2", rules.counts()[1])
    found = rank_snapshots(world.looks, world.of, rules, FID, 3)
    assert (found.order, found.snapshots[1].cell_digest) == ([1, 0], "3")


def test_a_fixed_setting_is_told_to_pick_the_wrong_snapshot_where_it_does() -> None:
    """At the first setting the second snapshot is better, and yet the first one is the best."""
    world = Snapshots([[5.0, 2.0], [4.0, 3.0]])
    found = whole(world)
    assert (found.best, found.leader, found.decided, found.order) == (0, "1", True, [0, 1])
    wrong, right = found.settings
    assert (wrong.setting, wrong.picks, wrong.call) == ("S = 10, eta = 0", (1,), "wrong")
    assert wrong.behind.low <= 3.0 - 2.0 <= wrong.behind.high
    assert wrong.there.low <= 4.0 - 2.0 <= wrong.there.high
    assert wrong.behind.low > 0.5
    assert (right.picks, right.call, right.there.high) == ((0,), "right", 0.0)
    tied = whole(Snapshots([[4.0, 2.0], [4.0, 3.0]])).settings[0]
    assert (tied.picks, tied.call) == ((0, 1), "cannot be told")
    assert tied.behind.low <= 0.0
    assert tied.behind.high >= 1.0  # whichever it picks
    equal = whole(Snapshots([[3.0, 9.0], [3.0, 9.0]]))
    assert [one.behind.may_be_best for one in equal.snapshots] == [True, True]
    assert (equal.settings[0].picks, equal.settings[0].call) == ((0, 1), "cannot be told")


def test_a_race_finds_the_best_snapshot_and_setting_with_half_of_the_images() -> None:
    """Six snapshots, each with another best setting, as of a training: the last two are near."""
    bests = [6.0, 4.0, 3.0, 2.5, 2.12, 2.0]
    truth = [[best + 0.4 * abs(s % 4 - g) for g in range(4)] for s, best in enumerate(bests)]
    for seed in range(10):
        world = Snapshots(truth, seed)
        found, outcome = raced(world, budget=24 * MOST // 2)
        assert outcome.images <= outcome.images_full / 2
        assert (found.best, found.snapshots[5].setting) == (5, "S = 20, eta = 0")
        truly = whole(Snapshots(truth, seed))
        assert truly.leader == found.leader


def test_cells_that_failed_are_left_out_and_a_snapshot_without_any_is_none() -> None:
    world = Snapshots([[9.0, 8.0], [3.0, 4.0], [5.0, 6.0]])
    rules = Rules("best", 0.95, 10**6, MOST, MOST)
    world([2, 3, 4], MOST)
    found = rank_snapshots(world.looks, world.of, rules, FID, None)
    assert [one.name for one in found.snapshots] == ["step-1", "step-2"]
    assert (found.best, found.leader, set(found.cells)) == (0, "2", {"2", "3", "4"})
    assert [one.setting for one in found.settings] == ["S = 10, eta = 0"]
    # What failed is no rival: how much worse the others are is known all the same.
    assert (found.cells["2"].high, found.decided) == (0.0, True)
    assert 2.0 < found.cells["4"].high < 3.0


def test_a_look_that_was_not_planned_bounds_nothing() -> None:
    world = Snapshots([[3.0, 3.1], [3.2, 9.0]])
    rules = Rules("best", 0.95, 10**6, FIRST, MOST)
    world(range(4), FIRST)
    before = rank_snapshots(world.looks, world.of, rules, FID, None)
    world([0, 1, 2], FIRST + 1)
    assert rank_snapshots(world.looks, world.of, rules, FID, None) == before
    world([0, 1, 2], rules.counts()[1])
    assert rank_snapshots(world.looks, world.of, rules, FID, None) != before


def test_more_of_a_score_is_better_and_snapshots_of_one_name_are_told_apart() -> None:
    """By CLIPScore the highest is the best, whatever FID says."""
    clip = MEASURES["clip_score"]

    class Scored(Snapshots):
        def __call__(self, cells: Sequence[int], n: int) -> Mapping[int, CellRow]:
            super().__call__(cells, n)
            self.looks[-1] = {
                i: replace(row, checkpoint="step", clip_score=row.fid,
                           clip_score_leave_one_out=row.fid_leave_one_out, fid=1.0)
                for i, row in self.looks[-1].items()
            }  # fmt: skip
            return self.looks[-1]

    found = whole(Scored([[0.2, 0.5], [0.9, 0.3]]), clip)
    assert [one.name for one in found.snapshots] == ["step (00000000)", "step (11111111)"]
    assert found.leader == "2"
    best = found.snapshots[1]
    assert best.value_low < best.value < best.value_high
    assert found.snapshots[0].behind.low > 0.0


def test_too_few_images_for_intervals_are_refused() -> None:
    world = Snapshots([[3.0], [4.0]], fid_leave_one_out=[], fid_inf=None)
    with pytest.raises(ValueError, match=r"2048 images a cell are too few .* of FID.*; raise n_im"):
        whole(world)
