"""The race of cells, on distances whose truth is known: what it finds, saves, and may not do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ddim_core.decisions.measure import FID, MEASURES
from ddim_core.decisions.race import Outcome, Rules, allocate
from ddim_core.decisions.row import CellRow
from ddim_core.statistics.jackknife import jackknife
from tests.core.rows import cell_row

GROUPS = 20


class Cells:
    """Cells of known truth whose estimates scatter by 4 / sqrt(n) together, and 1 / sqrt(n) alone.

    Images are drawn once and extended: what n images say stays part of what 2n say.
    """

    def __init__(self, truths: Sequence[float], seed: int = 0, failing: int | None = None) -> None:
        rng = np.random.default_rng(seed)
        shared = 4.0 * rng.standard_normal((4096, 1))
        self.images = np.asarray(truths) + shared + rng.standard_normal((4096, len(truths)))
        self.failing = failing
        self.asked: list[tuple[list[int], int]] = []

    def __call__(self, cells: Sequence[int], n: int) -> Mapping[int, CellRow]:
        self.asked.append((list(cells), n))
        return {i: self._row(i, n) for i in cells if i != self.failing}

    def _row(self, i: int, n: int) -> CellRow:
        groups = np.array_split(self.images[:n, i], GROUPS)
        sizes = [len(group) for group in groups]
        total = sum(float(group.sum()) for group in groups)
        loo = [(total - float(g.sum())) / (n - len(g)) for g in groups]
        found = jackknife(total / n, loo, sizes)
        return cell_row(**{
            "fid": total / n, "fid_leave_one_out": loo, "group_sizes": sizes, "n_images": n,
            "fid_inf": found.bias_corrected, "fid_inf_leave_one_out": loo,
        })  # fmt: skip


def race(cells: Cells, k: int, nfe: Sequence[int] | None = None, **rules: Any) -> Outcome:
    asked = {"goal": "best", "confidence": 0.95, "budget": 10**9, "first": 256, "most": 4096}
    return allocate(nfe or [1] * k, cells, Rules(**{**asked, **rules}))


def statuses(outcome: Outcome) -> list[str]:
    return [ruling.status for ruling in outcome.rulings]


def test_clear_differences_are_decided_in_the_first_round() -> None:
    cells = Cells([5.0, 3.0, 4.0, 9.0])
    outcome = race(cells, 4)
    assert outcome.decided
    assert (outcome.leader, statuses(outcome)) == (1, ["beaten", "best", "beaten", "beaten"])
    assert cells.asked == [([0, 1, 2, 3], 256)]
    assert (outcome.images, outcome.images_full) == (4 * 256, 4 * 4096)
    assert outcome.rounds == (1, 8)
    assert outcome.rulings[3].beaten_by == 1  # by the widest margin
    assert outcome.rulings[3].test is not None
    assert outcome.rulings[3].test.value == pytest.approx(6.0, abs=0.5)


def test_images_go_to_the_cells_that_are_open_and_are_extended() -> None:
    cells = Cells([3.0, 3.15, 4.0, 9.0])
    outcome = race(cells, 4)
    assert outcome.decided
    assert outcome.leader == 0
    assert cells.asked[0] == ([0, 1, 2, 3], 256)
    assert all(which == [0, 1] for which, _ in cells.asked[1:])
    assert [n for _, n in cells.asked] == [256, 384, 576, 864, 1296, 1944, 2916, 4096][
        : len(cells.asked)
    ]
    assert [r.n_images for r in outcome.rulings[2:]] == [256, 256]
    assert outcome.images == sum(r.n_images for r in outcome.rulings)


def test_equal_cells_stay_open_and_share_the_lead() -> None:
    outcome = race(Cells([3.0, 3.0, 9.0], seed=1), 3)
    assert not outcome.decided
    assert statuses(outcome) == ["open", "open", "beaten"]
    assert outcome.leader in (0, 1)
    assert [r.n_images for r in outcome.rulings] == [4096, 4096, 256]
    assert outcome.rounds == (8, 8)


@pytest.mark.parametrize("budget", [1024, 1500, 3000, 5000])
def test_the_budget_is_never_exceeded_and_spent_to_its_end(budget: int) -> None:
    outcome = race(Cells([3.0, 3.0, 3.0, 9.0], seed=2), 4, budget=budget)
    assert not outcome.decided
    assert budget - 4 < outcome.images <= budget


def test_what_a_spent_budget_leaves_completes_the_lowest_cells_and_the_best_of_them_leads() -> None:
    cells = Cells([3.0, 3.0, 3.0, 3.0, 9.0], seed=3)
    outcome = race(cells, 5, budget=11_000)
    assert not outcome.decided
    completed, n = cells.asked[-1]
    assert (n, len(completed)) == (4096, 1)
    assert outcome.leader in completed
    before = cells.asked[-2]
    lowest = min(before[0], key=lambda i: float(cells.images[: before[1], i].mean()))
    assert completed == [lowest]
    assert outcome.images <= 11_000
    assert sorted(r.n_images for r in outcome.rulings)[-1] == 4096


def test_a_cell_that_fails_while_it_is_completed_is_told_and_does_not_lead() -> None:
    class FailsAtTheEnd(Cells):
        def __call__(self, cells: Sequence[int], n: int) -> Mapping[int, CellRow]:
            rows = super().__call__(cells, n)
            return {} if n == 4096 else rows

    cells = FailsAtTheEnd([3.0, 3.0, 3.0, 3.0, 9.0], seed=3)
    outcome = race(cells, 5, budget=11_000)
    (lost,) = cells.asked[-1][0]
    assert statuses(outcome)[lost] == "failed"
    assert outcome.leader not in (None, lost)


def test_a_budget_below_the_first_round_is_refused() -> None:
    with pytest.raises(ValueError, match=r"budget is 1023 images; .* 4 cells times 256 = 1024"):
        race(Cells([1.0] * 4), 4, budget=1023)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"first": 1}, "1 images a cell"),
        ({"most": 100}, "256 images a cell"),
    ],
)
def test_rules_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        race(Cells([1.0, 2.0]), 2, **wrong)


def test_rounds_are_whole_shards_up_to_the_most() -> None:
    assert Rules("best", 0.95, 10**6, 384, 2048, 128).counts() == [384, 640, 1024, 1536, 2048]
    assert Rules("best", 0.95, 10**6, 100, 100, 128).counts() == [100]
    assert Rules("best", 0.95, 10**6, 2, 5).counts() == [2, 3, 4, 5]


def test_the_front_holds_what_no_cheaper_cell_beats() -> None:
    # By calls: 5 -> 9.0; 10 -> 4.0 and 6.0; 20 -> 5.0 (beaten by a cheaper one); 50 -> 3.0.
    outcome = race(Cells([9.0, 4.0, 6.0, 5.0, 3.0]), 5, nfe=[5, 10, 10, 20, 50], goal="front")
    assert outcome.decided
    assert statuses(outcome) == ["front", "front", "beaten", "beaten", "front"]
    assert [outcome.rulings[i].beaten_by for i in (2, 3)] == [1, 1]


def test_an_equal_and_dearer_cell_leaves_the_front_open_alone() -> None:
    outcome = race(Cells([9.0, 3.0, 3.0], seed=4), 3, nfe=[5, 10, 20], goal="front")
    assert statuses(outcome) == ["front", "front", "open"]
    # Its cheaper rival is decided but is still needed: both are drawn to the end.
    assert [r.n_images for r in outcome.rulings] == [256, 4096, 4096]


def test_a_cell_that_fails_leaves_the_race_and_is_told() -> None:
    outcome = race(Cells([3.0, 4.0, 5.0], failing=0), 3)
    assert statuses(outcome) == ["failed", "best", "beaten"]
    assert outcome.images == 2 * 256


def test_one_cell_is_the_best_of_itself() -> None:
    outcome = race(Cells([3.0]), 1)
    assert outcome.decided
    assert outcome.images == 256


def test_the_best_cell_survives_all_looks_as_often_as_asked() -> None:
    """Equal cells are the worst case: any of them may be the best, and it may not be beaten."""
    lost = sum(
        race(Cells([3.0] * 6, seed=seed), 6, first=512).rulings[0].status == "beaten"
        for seed in range(100)
    )
    # 5 of 100 are allowed, with a standard error of 2.2; the bound over looks is conservative.
    assert lost <= 5 + 3 * 2.2
    # It is not vacuous: at a confidence of 0.5 the same cell is lost now and then.
    bold = sum(
        race(Cells([3.0] * 6, seed=seed), 6, confidence=0.5).rulings[0].status == "beaten"
        for seed in range(40)
    )
    assert bold >= 1


def test_without_fid_inf_cells_are_compared_by_fid() -> None:
    cells = Cells([3.0, 4.0])

    def score(which: Sequence[int], n: int) -> dict[int, CellRow]:
        rows = cells(which, n)
        return {
            i: replace(row, fid_inf=None, fid_inf_leave_one_out=None) for i, row in rows.items()
        }

    outcome = allocate([1, 1], score, Rules("best", 0.95, 10**6, 256, 4096))
    assert (outcome.measure, outcome.leader, outcome.decided) == (FID, 0, True)


def test_the_score_that_is_asked_for_decides_and_more_of_it_is_better() -> None:
    cells, clip = Cells([0.20, 0.35, 9.0]), MEASURES["clip_score"]

    def score(which: Sequence[int], n: int) -> dict[int, CellRow]:
        """FID says the first cell is best, and CLIPScore the last."""
        return {
            i: replace(
                row,
                fid_inf=float(i),
                clip_score=row.fid,
                clip_score_leave_one_out=row.fid_leave_one_out,
            )
            for i, row in cells(which, n).items()
        }

    outcome = allocate([1, 1, 1], score, Rules("best", 0.95, 10**6, 256, 4096), clip)
    assert (outcome.measure, outcome.leader, outcome.decided) == (clip, 2, True)
    assert outcome.rulings[0].test is not None
    assert outcome.rulings[0].test.value < 0.0  # less than the cell that beats it
    front = allocate([1, 2, 3], score, Rules("front", 0.95, 10**6, 256, 4096), clip)
    assert front.rulings[2].status == "front"
    named = {"steps": 5, "eta": 0.0, "variance": "eta", "checkpoint": "faces"}

    def unscored(which: Sequence[int], n: int) -> dict[int, CellRow]:
        return {i: replace(row, **named) for i, row in score(which, n).items()}

    rules, pick = Rules("best", 0.95, 10**6, 256, 4096), MEASURES["pick_score"]
    with pytest.raises(ValueError, match=r"pick_score decides, and S = 5, eta = 0 of faces .* non"):
        allocate([1, 1, 1], unscored, rules, pick)
