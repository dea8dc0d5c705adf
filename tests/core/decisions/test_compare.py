"""Paired comparisons between rows: what is refused, what is corrected, who is tied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ddim_core.decisions.compare import (
    comparable_sets,
    compare,
    compare_with_best,
    difference,
    difference_inf,
    tied_with_best,
    unpaired_fields,
)
from ddim_core.decisions.row import CellRow
from ddim_core.statistics.jackknife import jackknife
from tests.core.rows import cell_row

GROUPS = 20
SHARED = np.random.default_rng(0).standard_normal(GROUPS)


def row(name: str, fid: float, own: float = 0.01, **fields: Any) -> CellRow:
    """A row whose groups scatter together with all others, and by `own` alone."""
    alone = np.random.default_rng(sum(map(ord, name))).standard_normal(GROUPS)
    loo = fid + 0.1 * SHARED + own * alone
    inf = loo - 1.0
    found = jackknife(fid - 1.0, inf.tolist(), [50] * GROUPS)
    return cell_row(**{
        "cell_digest": name * 8, "fid": fid, "fid_leave_one_out": loo.tolist(),
        "fid_inf": found.bias_corrected, "fid_inf_leave_one_out": inf.tolist(),
        "group_sizes": [50] * GROUPS, "seed": 0, "n_images": 1000, "shard_size": 500,
        "extractor_digest": "e" * 64, "reference_digest": "r" * 64, "resolution": 8, **fields,
    })  # fmt: skip


def test_a_shared_scatter_cancels_and_the_difference_is_of_the_rows_as_given() -> None:
    (found,) = compare([(row("a", 3.2), row("b", 3.0))])
    assert (found.a, found.b) == ("a" * 8, "b" * 8)
    assert found.value == pytest.approx(0.2)
    assert found.low < 0.2 < found.high
    assert found.verdict == "worse"
    assert compare([(row("b", 3.0), row("a", 3.2))])[0].verdict == "better"
    # Each alone is known to 0.1 * 19 / sqrt(19) = 0.4 only.
    assert found.se < 0.1


def test_tests_of_one_question_are_corrected_together() -> None:
    pairs = [(row("a", 3.2), row("b", 3.0)), (row("c", 3.01), row("d", 3.0))]
    alone = [compare([pair])[0] for pair in pairs]
    together = compare(pairs)
    assert [c.p_value for c in together] == [c.p_value for c in alone]
    assert together[0].p_adjusted == pytest.approx(min(1.0, 2 * alone[0].p_value))
    assert together[1].p_adjusted >= alone[1].p_value
    assert compare([]) == []


def test_every_pair_counts_when_the_best_is_chosen_by_the_same_numbers() -> None:
    rows = [row("a", 3.0), row("b", 3.2), row("c", 9.0)]
    best, found = compare_with_best(rows)
    assert best is rows[0]
    assert sorted(found) == [1, 2]
    assert all(comparison.b == "a" * 8 for comparison in found.values())
    three = compare([(rows[1], rows[0]), (rows[2], rows[0]), (rows[2], rows[1])])
    assert found[1] == three[0]


def test_ties_come_after_the_best_in_order_of_their_distance() -> None:
    rows = [row("a", 3.02, own=0.2), row("b", 3.0, own=0.2), row("c", 9.0), row("d", 3.01, own=0.2)]
    assert tied_with_best(rows) == [rows[1], rows[3], rows[0]]
    assert tied_with_best(rows[:1]) == rows[:1]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("seed", 1, "seed is 0 and 1"),
        ("n_images", 2000, "n_images is 1000 and 2000"),
        ("shard_size", 250, "shard_size is 500 and 250"),
        ("extractor_digest", "f" * 64, "extractor_digest is 'eeeeeeeeeeee' and 'ffffffffffff'"),
        ("reference_digest", "s" * 64, "reference_digest is"),
        ("resolution", 16, "resolution is 8 and 16"),
        ("group_sizes", [40] * 25, "20 groups of 50 to 50 images and 25 groups of 40 to 40"),
    ],
)
def test_rows_that_are_no_pairs_are_refused_with_the_field_named(
    field: str, value: Any, said: str
) -> None:
    a, b = row("a", 3.0), row("b", 3.0, **{field: value})
    assert unpaired_fields(a, b) == [field]
    with pytest.raises(ValueError, match="cannot be compared") as error:
        difference(a, b)
    assert said in str(error.value)
    assert comparable_sets([a, b, row("c", 2.0)]) == [[a, row("c", 2.0)], [b]]


def test_all_fields_that_differ_are_named_together() -> None:
    with pytest.raises(ValueError, match="n_images is 1000 and 5; seed is 0 and 7"):
        compare([(row("a", 3.0), row("b", 3.0, seed=7, n_images=5))])


def test_corrected_distances_differ_by_what_their_rows_say() -> None:
    a, b = row("a", 3.2), row("b", 3.0)
    found = difference_inf(a, b)
    assert found.value == pytest.approx(a.fid_inf - b.fid_inf)
    # The uncorrected estimate comes back from the corrected one: the same spread as by hand.
    loo = np.subtract(a.fid_inf_leave_one_out, b.fid_inf_leave_one_out)
    assert found.se == pytest.approx(jackknife(0.2, loo.tolist()).se, rel=1e-9)
    with pytest.raises(ValueError, match="too few images"):
        difference_inf(a, replace(b, fid_inf_leave_one_out=None))


def test_rows_without_groups_are_refused() -> None:
    few = {"fid_leave_one_out": [], "group_sizes": [1000]}
    with pytest.raises(ValueError, match="at least 2 groups"):
        difference(row("a", 3.0, **few), row("b", 3.0, **few))


def test_equal_cells_are_called_different_as_often_as_the_level_says() -> None:
    # A/A: ten cells of one truth with correlated noise; any pair called different is a false alarm.
    rng, alarms, single = np.random.default_rng(3), 0, 0
    for _ in range(300):
        shared = rng.standard_normal((GROUPS, 1))
        groups = 3.0 * shared + rng.standard_normal((GROUPS, 10))
        means = groups.mean(axis=0)
        loo = (GROUPS * means - groups) / (GROUPS - 1)
        rows = [
            row("x", float(mean), fid_leave_one_out=values.tolist())
            for mean, values in zip(means, loo.T, strict=True)
        ]
        single += difference(rows[0], rows[1]).p_value < 0.05
        alarms += len(tied_with_best(rows)) < len(rows)
    # 15 of 300 are expected of one pair, with a standard error of 3.8: within three of them. The
    # choice of the best may cost nothing: the family's level is 5 %, and Holm is conservative.
    assert 4 <= single <= 27
    assert alarms <= 27
