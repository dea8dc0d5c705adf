"""Paired comparisons between rows: what is refused, what is corrected, who is tied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ddim_core.decisions.compare import (
    comparable_sets,
    compare,
    difference,
    pairing,
    unpaired_fields,
)
from ddim_core.decisions.measure import MEASURES
from ddim_core.decisions.row import CellRow
from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.paired import paired_difference
from tests.core.rows import cell_row

GROUPS = 20
NAMED: dict[str, Any] = {"steps": 5, "eta": 0.0, "variance": "eta"}
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
    found = difference(a, b, MEASURES["fid_inf"])
    assert found.value == pytest.approx(a.fid_inf - b.fid_inf)
    # The uncorrected estimate comes back from the corrected one: the same spread as by hand.
    loo = np.subtract(a.fid_inf_leave_one_out, b.fid_inf_leave_one_out)
    assert found.se == pytest.approx(jackknife(0.2, loo.tolist()).se, rel=1e-9)
    with pytest.raises(ValueError, match=r"cell bbbb.* has none; it takes more images"):
        difference(a, replace(b, fid_inf=None, **NAMED), MEASURES["fid_inf"])


def test_scores_of_images_pair_by_their_own_groups_of_the_same_prompts() -> None:
    rng = np.random.default_rng(4)
    prompts = {"image_score_group_sizes": [100] * 10, "prompts_digest": "p" * 64}
    a, b = (
        row("a", 3.0, hpsv2=0.3 + k, hpsv2_leave_one_out=rng.normal(size=10).tolist(), **prompts)
        for k in range(2)
    )
    found = difference(a, b, MEASURES["hpsv2"])
    loo = np.subtract(a.hpsv2_leave_one_out, b.hpsv2_leave_one_out)
    assert found.se == pytest.approx(jackknife(-1.0, loo.tolist()).se)
    with pytest.raises(ValueError, match="prompts_digest is 'pppppppppppp' and 'qqqqqqqqqqqq'"):
        difference(a, replace(b, prompts_digest="q" * 64), MEASURES["hpsv2"])


def test_rows_without_groups_are_refused() -> None:
    few = {"fid_leave_one_out": [], "group_sizes": [1000]}
    with pytest.raises(ValueError, match="at least 2 groups"):
        difference(row("a", 3.0, **few), row("b", 3.0, **few))


def test_an_interval_leaves_zero_out_where_the_label_says_so_and_nowhere_else() -> None:
    rng = np.random.default_rng(2)
    pairs = [(row("a", 3.0 + d, own=0.01), row("b", 3.0)) for d in rng.normal(0, 0.2, 40)]
    found = compare(pairs)
    assert {c.verdict for c in found} == {"better", "worse", "tied"}
    for one in found:
        assert (one.verdict == "tied") == (one.low <= 0.0 <= one.high)
        assert (one.verdict == "better") == (one.high < 0.0)


def test_what_pairing_buys_is_told_by_the_noise_of_the_pair() -> None:
    def cell(name: str, eta: float, shared: float, own: float) -> CellRow:
        alone = np.random.default_rng(sum(map(ord, name))).standard_normal(GROUPS)
        loo = 3.0 + shared * SHARED + own * alone
        return row(name, 3.0, eta=eta, variance="eta", fid_leave_one_out=loo.tolist())

    rows = [cell("a", 0.0, 0.1, 0.02), cell("b", 0.0, 0.1, 0.02),
            cell("c", 1.0, 0.0, 0.1), cell("d", 1.0, 0.0, 0.1)]  # fmt: skip
    found = pairing(rows)
    assert found is not None
    assert [(name, n) for name, n, _ in found.kinds] == [
        ("both without noise", 1), ("one or both with eta = 1", 5),
    ]  # fmt: skip
    # Two cells with 0.1 of a shared scatter and 0.02 of their own: 0.02 / sqrt(0.1^2 + 0.02^2) in
    # the mean; 0.196. Of cells that share nothing 1. Both within the scatter of 20 groups.
    assert found.kinds[0][2] == pytest.approx(0.196, abs=0.07)
    assert found.kinds[1][2] == pytest.approx(1.0, abs=0.25)
    twin = paired_difference(rows[0].fid_leave_one_out, rows[1].fid_leave_one_out, 3.0, 3.0)
    alone = [jackknife(3.0, r.fid_leave_one_out).se for r in rows[:2]]
    assert found.kinds[0][2] == pytest.approx(twin.se / np.hypot(*alone), rel=1e-12)
    assert pairing(rows[:1]) is None
    heun, churned = (
        replace(row, sampler=f"edm_heun{keys}", scheduler_config="{}")
        for row, keys in zip(rows, ("", "?S_churn=40"), strict=False)
    )
    noisy = "one or both of another sampler that draws noise, or may"
    for pair, kind in (((heun, rows[1]), "both without noise"), ((heun, churned), noisy)):
        of_pair = pairing(pair)
        assert of_pair is not None
        assert [name for name, _, _ in of_pair.kinds] == [kind]
