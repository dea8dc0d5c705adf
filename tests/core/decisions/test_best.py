"""How much worse each cell may be than the best: coverage, labels, recommendations, images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddim_core.decisions.best import Margin, rank, usual_margin
from ddim_core.decisions.compare import difference
from ddim_core.decisions.measure import MEASURES
from ddim_core.decisions.row import CellRow, floor_text
from ddim_core.reports.verdicts.sentences import best_of
from ddim_core.scores.cell_score import CellScore
from tests.core.rows import cell_row

GROUPS, SIZE = 20, 50
Floats = NDArray[np.float64]


def rows_of(groups: Floats, name: str = "fid", **fields: Any) -> list[CellRow]:
    """Rows of cells whose groups have these means [groups, cells]."""
    means = groups.mean(axis=0)
    loo = (GROUPS * means - groups) / (GROUPS - 1)
    return [
        cell_row(**{
            "cell_digest": f"{i}", "checkpoint": "faces", "steps": i + 1, "eta": 0.0,
            "variance": "eta", "nfe": i + 1, "n_images": GROUPS * SIZE,
            "group_sizes": [SIZE] * GROUPS, name: float(mean),
            f"{name}_leave_one_out": values.tolist(), **fields,
        })
        for i, (mean, values) in enumerate(zip(means, loo.T, strict=True))
    ]  # fmt: skip


def world(truth: Floats, shared: float, seed: int) -> Floats:
    """Group means [groups, cells] that scatter together, and each by its own 0.5 to 2."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((GROUPS, len(truth))) * np.linspace(0.5, 2.0, len(truth))
    return truth + shared * rng.standard_normal((GROUPS, 1)) + own


PLANTED = {
    "two equal": np.zeros(2),
    "ten equal": np.zeros(10),
    "one best, nine near": np.r_[0.0, np.full(9, 0.8)],
    "three equal bests, seven far": np.r_[0.0, 0.0, 0.0, np.full(7, 3.0)],
    "a slope": np.linspace(0.0, 4.0, 8),
}


@pytest.mark.parametrize("name", list(PLANTED))
def test_all_intervals_hold_together_and_labels_say_what_they_say(name: str) -> None:
    truth, draws, missed, alarms, told = PLANTED[name], 300, 0, 0, 0
    worse = truth - truth.min()
    for seed in range(draws):
        found = rank(rows_of(world(truth, 3.0, seed))).standings
        low, high = (np.array([getattr(one, end) for one in found]) for end in ("low", "high"))
        missed += not ((low <= worse) & (worse <= high)).all()
        alarms += bool(((worse == 0.0) & (low > 0.0)).any())
        told += int((low > 0.0).sum())
        assert all(one.tied == (one.low <= 0.0 <= one.high) for one in found)
        assert all(one.tied == (one.p_value >= 0.05) for one in found)
    # At most 15 of 300 are expected, with a standard error of 3.8: three of them more.
    assert missed <= 15 + 3 * 3.8
    assert alarms <= missed
    if "far" in name:  # 3 apart is 4 to 8 standard errors: most are told, or the test says nothing
        assert told > 0.8 * 7 * draws


def test_two_cells_have_the_usual_interval_of_their_difference() -> None:
    one, other = rank(rows_of(world(np.array([0.0, 3.0]), 1.0, 0))).standings
    usual = difference(other.row, one.row)
    assert (other.low, other.high) == pytest.approx((usual.low, usual.high), rel=1e-9)
    assert other.p_value == pytest.approx(usual.p_value, rel=1e-9)
    assert (one.low, one.high) == (0.0, 0.0)


def test_the_cheapest_cell_shown_to_be_within_the_margin_is_recommended_and_no_other() -> None:
    groups = world(np.array([9.0, 2.2, 2.1, 2.0]), 1.0, 1) * 0.1
    wide = rank(rows_of(groups), margin=Margin(0.5, "as asked"))
    assert [one.row.nfe for one in wide.within] == [2, 3, 4]
    assert wide.recommended is wide.standings[1].row
    narrow = rank(rows_of(groups), margin=Margin(1e-6, "as asked"))
    assert narrow.recommended is None  # tied cells are not shown to be within anything so small
    assert len(narrow.ties) == 2
    clear = rank(rows_of(world(np.array([9.0, 6.0, 0.0]), 1.0, 1) * 0.1), margin=Margin(0.1, ""))
    assert clear.within == [clear.best]  # nothing can be better than it


def test_the_images_that_are_named_do_decide_if_the_numbers_stay() -> None:
    groups = world(np.array([0.5, 0.0, 0.2, 6.0]), 1.0, 3)
    margin, means = Margin(0.3, "as asked"), groups.mean(axis=0)
    found = rank(rows_of(groups), margin=margin)
    wanted = [one.decided_at for one in found.standings]
    assert wanted[3] is None
    assert not found.standings[3].tied
    for i, n in enumerate(wanted[:3]):
        assert n is not None
        for images, decided in ((n, True), (0.7 * n, False)):  # steps of rounding are 1.33 at most
            scale = np.sqrt(GROUPS * SIZE / images)
            one = rank(rows_of(means + scale * (groups - means)), margin=margin).standings[i]
            assert (not one.tied or one.high <= margin.value) == decided
    nothing = rank(rows_of(np.repeat(groups[:, :1], 2, axis=1)), margin=Margin(0.0, "")).standings
    assert [(one.tied, one.high, one.decided_at) for one in nothing] == [(True, 0.0, None)] * 2


def test_the_margin_is_what_is_asked_or_the_floors_interval_or_two_percent() -> None:
    rows = rows_of(np.full((GROUPS, 2), 5.0) + np.array([0.0, 1.0]))
    floor = CellScore(n_images=100, n_reference=100, n_features=2, fid=9.0, fid_low=7.0,
                      fid_high=11.0, kid=0.0, kid_std=0.0, kid_subset_size=9)  # fmt: skip
    assert usual_margin(rows) == Margin(pytest.approx(0.1), "2 % of the lowest FID")
    beside = [replace(row, floor=floor_text(floor)) for row in rows]
    assert usual_margin(beside).value == 2.0
    # What a verdict's page recommends within, of the same rows.
    assert best_of(beside).ranking == rank(beside, margin=usual_margin(beside))
    assert usual_margin(beside, asked=0.7) == Margin(0.7, "as asked")
    few = CellScore(n_images=2, n_reference=2, n_features=2, fid=9.0, kid=0.0, kid_std=0.0,
                    kid_subset_size=9)  # fmt: skip
    assert floor_text(few) is floor_text(None) is None
    unknown = [replace(row, floor=floor_text(few)) for row in rows]
    assert usual_margin(unknown).value == pytest.approx(0.1)
    # One row of an older version beside others; then what another program may write there.
    assert usual_margin([rows[0], beside[1]]).value == 2.0
    for odd in ("", "{", "[]", "3", '{"fid": 1}', '{"fid": [1]}', '{"fid": [2, "x"]}', "[" * 9999,
                '{"fid": [NaN, 1]}', '{"fid": [0, Infinity]}', '{"fid": [3, 1]}'):  # fmt: skip
        assert usual_margin([replace(row, floor=odd) for row in rows]).value == pytest.approx(0.1)
    liked = rows_of(np.full((GROUPS, 2), 5.0) + np.array([0.0, 1.0]), "aesthetic")
    liked = [replace(row, floor=floor_text(floor)) for row in liked]
    said = usual_margin(liked, MEASURES["aesthetic"])
    assert said == Margin(pytest.approx(0.12), "2 % of the highest aesthetic score")


def test_a_lower_end_that_is_not_0_is_never_written_as_0() -> None:
    fid = MEASURES["fid"]
    assert fid.worse_by(0.0, 0.434) == "0.00 to 0.43"
    assert fid.worse_by(0.0004, 0.434) == "0.0004 to 0.43"
    assert fid.worse_by(0.31, 0.434) == "0.31 to 0.43"
    assert [fid.number(x) for x in (0.0042, -1e-16, 0.31)] == ["0.0042", "0.00", "0.31"]
    assert [fid.signed(x) for x in (0.0, -0.0042, 0.31)] == ["+0.00", "-0.0042", "+0.31"]
