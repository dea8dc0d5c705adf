"""What a line does over S, on lines whose course is planted, and on the lab's own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.special import stdtrit

from ddim_core.decisions.measure import MEASURES
from ddim_core.decisions.row import CellRow
from ddim_core.decisions.shapes import Shape, shapes
from tests.core.rows import cell_row

GROUPS, SIZE = 20, 50
STEPS = (5, 10, 20, 50, 100, 200)


def line(
    values: Sequence[float], half_width: float, eta: float = 0.0, name: str = "fid", **fields: Any
) -> list[CellRow]:
    """Rows over S whose 95 % intervals have exactly this half width, and that share no scatter:
    the leave-one-out values of each lie along its own of orthogonal directions."""
    rng = np.random.default_rng(int(100 * eta) + len(values))
    directions = np.linalg.qr(np.c_[np.ones(GROUPS), rng.standard_normal((GROUPS, len(values)))])[
        0
    ][:, 1:]
    # se^2 = (G - 1)/G sum (loo - mean)^2, and the half width is t of G - 1 times se.
    length = half_width / stdtrit(GROUPS - 1, 0.975) / np.sqrt((GROUPS - 1) / GROUPS)
    return [
        cell_row(**{
            "steps": steps, "eta": eta, "variance": "eta", "nfe": steps, "n_images": GROUPS * SIZE,
            "group_sizes": [SIZE] * GROUPS, "checkpoint": "lab", name: value,
            f"{name}_low": value - half_width, f"{name}_high": value + half_width,
            f"{name}_leave_one_out": (value + length * direction).tolist(), **fields,
        })
        for steps, value, direction in zip(STEPS, values, directions.T, strict=False)
    ]  # fmt: skip


def shape(values: Sequence[float], half_width: float = 3.0) -> Shape:
    (found,) = shapes({"a": line(values, half_width)})
    return found


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((80, 60, 40, 20), "better"), ((20, 40, 60, 80), "worse"), ((50, 51, 49, 50), "plateau"),
        ((80, 20, 22, 60), "best inside"), ((20, 80, 78, 40), "worst inside"),
        ((20, 80, 20, 80), "turns"), ((51, 50, 49, 80), "worse"), ((49, 50, 80, 81), "worse"),
        ((80, 49, 50, 51), "better"), ((80, 48, 50, 45, 47), "better"),
    ],
)  # fmt: skip
def test_a_course_is_read_over_all_s_and_not_by_its_ends(
    values: Sequence[float], kind: str
) -> None:
    found = shape(values)
    assert found.kind == kind
    for one, other in zip(found.legs, found.legs[1:], strict=False):
        assert one.last is other.first
        assert one.worse != other.worse


def test_where_a_line_levels_off_is_told_and_how_level_it_is_shown_to_be() -> None:
    found = shape((80, 40, 20, 19, 20))
    assert found.level_from is not None
    assert found.level_from.steps == 20
    # 1 apart at most, plus an interval of 3 sqrt(2) widened for 10 comparisons.
    widened = stdtrit(19, 1 - 0.05 / 20) / stdtrit(19, 0.975) * 3.0 * np.sqrt(2.0)
    assert found.level_within == pytest.approx(1.0 + widened, rel=1e-9)
    assert shape((80, 60, 40, 20)).level_from is None
    plateau = shape((50, 51, 49, 50)).level_from
    assert plateau is not None
    assert plateau.steps == 5


@pytest.mark.parametrize(
    "values", [(40, 80, 39), (10, 30, 30, 10), (10, 80, 10, 80, 9), (40, 20, 60)]
)
def test_a_line_that_ends_no_worse_or_was_better_on_the_way_is_not_inverted(
    values: Sequence[float],
) -> None:
    assert not shape(values).inverted


def test_the_labs_table_of_an_undertrained_model_is_inverted_on_every_line() -> None:
    """541/921/1267/1479 and 570/616/716/700 over S = 5/10/20/50, each known to +-3."""
    zero, one = shapes({
        "eta = 0": line((541, 921, 1267, 1479), 3.0),
        "eta = 1": line((570, 616, 716, 700), 3.0, eta=1.0),
    })  # fmt: skip
    assert (zero.kind, one.kind) == ("worse", "worst inside")
    assert zero.inverted
    assert one.inverted  # no S is better than the fewest, though 50 is better than 20
    assert [leg.last.steps for leg in one.legs] == [20, 50]


def test_the_digits_table_falls_levels_off_and_turns_where_intervals_say_so() -> None:
    """The same at +-3, and with intervals that tell 6.3 from 5.9."""
    zero, one = (83.6, 26.6, 12.7, 8.6, 7.9), (146.0, 42.5, 13.1, 5.9, 6.3)
    sigma = (295.0, 147.0, 44.0, 14.5, 8.5)
    told = shapes({"0": line(zero, 3.0), "1": line(one, 3.0, 1.0), "s": line(sigma, 3.0, 0.5)})
    assert [found.kind for found in told] == ["better"] * 3
    levels = [found.level_from.steps if found.level_from else None for found in told]
    assert levels == [20, 20, 50]  # 13.1 and 5.9 are 7.2 apart; 3 sqrt(2), widened for 30, is 7.4
    assert not any(found.inverted for found in told)
    fine = shapes({"0": line(zero, 0.05), "1": line(one, 0.05, 1.0)})
    assert [found.kind for found in fine] == ["better", "best inside"]
    assert [found.level_from for found in fine] == [None, None]


def test_a_score_of_which_more_is_better_rises_where_it_gets_better() -> None:
    rising = line((0.1, 0.2, 0.3, 0.3), 0.01, name="clip_score")
    (found,) = shapes({"a": rising}, MEASURES["clip_score"])
    assert (found.kind, found.inverted) == ("better", False)
    (falling,) = shapes(
        {"a": line((0.3, 0.2, 0.1), 0.01, name="clip_score")}, MEASURES["clip_score"]
    )
    assert (falling.kind, falling.inverted) == ("worse", True)


def test_equal_cells_are_called_a_plateau_in_at_least_95_of_100_grids() -> None:
    wrong, draws = 0, 300
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        lines = {}
        for name in "abcd":
            groups = 2.0 * rng.standard_normal((GROUPS, 1)) + rng.standard_normal((GROUPS, 5))
            means = groups.mean(axis=0)
            loo = (GROUPS * means - groups) / (GROUPS - 1)
            lines[name] = [
                cell_row(steps=s, fid=float(m), fid_leave_one_out=x.tolist(),
                         group_sizes=[SIZE] * GROUPS)
                for s, m, x in zip(STEPS, means, loo.T, strict=False)
            ]  # fmt: skip
        wrong += any(found.kind != "plateau" for found in shapes(lines))
    assert wrong <= 15 + 3 * 3.8  # 15 of 300 at most are expected, standard error 3.8


def test_a_line_of_one_s_has_no_shape() -> None:
    assert shapes({"a": line((3.0,), 1.0)}) == []
