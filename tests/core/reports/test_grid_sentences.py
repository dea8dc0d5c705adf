"""The computed sentences, on rows made so that the right sentence is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ddim_core.decisions.compare import difference, tied_with_best
from ddim_core.decisions.row import CellRow, cell_name, line_name
from ddim_core.reports.grid_sentences import CLIPS, lines, read_grid
from tests.core.rows import cell_row

GROUPS, SIZE = 10, 100
# Leave-one-out values of one noise pattern that all cells of a grid share, as they share x_T,
# with this spread, and each with a little of its own.
SHARED = np.random.default_rng(0).standard_normal(GROUPS)


def row(
    steps: int, eta: float | str, fid: float, own: float = 0.01, groups: int = GROUPS
) -> CellRow:
    """A row whose FID scatters by 0.3 or so together with all others, and by `own` alone."""
    key = [steps, sum(map(ord, str(eta)))]
    alone = np.random.default_rng(key).standard_normal(GROUPS)
    loo = fid + (0.1 * SHARED + own * alone)[:groups]
    return cell_row(
        steps=steps,
        eta=1.0 if eta == "sigma" else eta,
        variance="sigma_hat" if eta == "sigma" else "eta",
        fid=fid,
        fid_low=fid - 0.5,
        fid_high=fid + 0.5,
        fid_leave_one_out=loo.tolist(),
        group_sizes=[SIZE] * groups,
        nfe=steps,
    )


PAPER = [
    row(5, 0.0, 80.0), row(10, 0.0, 26.0), row(50, 0.0, 12.0),
    row(5, 1.0, 140.0), row(10, 1.0, 42.0), row(50, 1.0, 6.0),
    row(5, "sigma", 290.0), row(10, "sigma", 147.0), row(50, "sigma", 14.0),
]  # fmt: skip


def test_names_are_those_of_the_grid() -> None:
    assert cell_name(row(10, 0.2, 1.0)) == "S = 10, eta = 0.2"
    assert line_name(row(10, "sigma", 1.0)) == "sigma-hat"
    assert [r.steps for r in lines(list(reversed(PAPER)))["eta = 0"]] == [5, 10, 50]


def test_shape_of_the_paper_is_read_as_such() -> None:
    best, trend, order = read_grid(PAPER)
    assert best.startswith("The lowest FID is 6.00 [5.50, 6.50] at S = 50, eta = 1;")
    assert "every other cell is worse beyond its paired interval" in best
    assert trend.startswith("From S = 5 to S = 50 FID falls on every line of the grid")
    assert "eta = 0 beats eta = 1, sigma-hat; eta = 1 beats sigma-hat" in order
    assert "At S = 10" in order


def test_a_line_that_clips_says_so_and_so_does_what_is_compared_with_it() -> None:
    clipped = [replace(r, clip=r.variance == "sigma_hat") for r in PAPER]
    assert line_name(clipped[-1]) == "sigma-hat (clips)"
    assert line_name(replace(clipped[-1], guidance_scale=3.0)) == "sigma-hat (clips, g = 3)"
    assert line_name(replace(row(5, 0.2, 1.0), clip=True)) == "eta = 0.2 (clips)"
    said = CLIPS.format(why=", as the official DDIM code does for sigma-hat")
    assert read_grid(clipped)[-1] == said
    few = [replace(r, fid_leave_one_out=[]) for r in clipped]
    assert read_grid(few)[-1] == said
    assert "Lines marked" not in " ".join(read_grid([replace(r, clip=True) for r in PAPER]))
    ddpm = replace(clipped[0], sampler="ddpm", scheduler_config="{}", clip=True)
    assert read_grid([*few, ddpm])[-1] == CLIPS.format(why="")


def test_ties_are_named_and_the_cheapest_of_them_told() -> None:
    rows = [row(10, 0.0, 6.01, own=0.2), row(50, 0.0, 6.0, own=0.2), row(5, 0.0, 30.0)]
    assert tied_with_best(rows) == [rows[1], rows[0]]
    best = read_grid(rows)[0]
    assert "one other cell cannot be told from it: S = 10, eta = 0" in best
    assert "The cheapest of these is S = 10, eta = 0, 10 network calls an image." in best
    more = read_grid([*rows, row(20, 0.0, 6.02, own=0.2)])[0]
    assert "2 other cells cannot be told from it: S = 10, eta = 0; S = 20, eta = 0" in more


def test_difference_is_paired_so_shared_scatter_does_not_hide_it() -> None:
    quiet = difference(row(10, 1.0, 6.2), row(10, 0.0, 6.0))
    assert quiet.value == pytest.approx(0.2)
    assert quiet.low > 0  # although each alone is known to 0.5 only
    loud = difference(row(10, 1.0, 6.2, own=0.3), row(10, 0.0, 6.0, own=0.3))
    assert loud.low < 0 < loud.high


def test_no_claim_where_nothing_differs() -> None:
    rows = [row(s, eta, 6.0, own=0.2) for s in (5, 10) for eta in (0.0, 1.0)]
    text = " ".join(read_grid(rows))
    assert "3 other cells cannot be told from it" in text
    assert "shows no difference beyond its interval at eta = 0, eta = 1" in text
    assert "At S = 10 no line of the grid can be told from another" in text
    assert not any(claim in text for claim in ("falls", "rises", "worse", "beats", "undertrained"))


def test_lines_that_fall_rise_and_stay_are_told_apart() -> None:
    rows = [
        row(5, 0.0, 30.0), row(50, 0.0, 10.0), row(5, 0.5, 10.0), row(50, 0.5, 30.0),
        row(5, 1.0, 20.0, own=0.2), row(50, 1.0, 20.01, own=0.2),
    ]  # fmt: skip
    trend = read_grid(rows)[1]
    assert "falls at eta = 0 (" in trend
    assert "rises at eta = 0.5" in trend
    assert "shows no difference beyond its interval at eta = 1" in trend


def test_undertrained_model_is_recognised_by_its_sign() -> None:
    rows = [
        row(5, 0.0, 541.0), row(50, 0.0, 1479.0), row(5, 1.0, 570.0), row(50, 1.0, 700.0),
    ]  # fmt: skip
    said = read_grid(rows)[-1]
    assert said.startswith("FID rises with S at eta = 0 (by 938.00 [")
    assert "undertrained" in said


@pytest.mark.parametrize(
    "rows",
    [
        PAPER,
        # eta 0 rises, but eta 1 is worse still: errors are not repaired by noise
        [row(5, 0.0, 10.0), row(50, 0.0, 20.0), row(5, 1.0, 30.0), row(50, 1.0, 30.0)],
        # the rise is within its interval
        [row(5, 0.0, 20.0, own=0.3), row(50, 0.0, 20.1, own=0.3), row(50, 1.0, 5.0)],
        [row(5, 0.0, 10.0), row(50, 0.0, 20.0)],
    ],
)
def test_undertraining_is_not_claimed_without_its_sign(rows: list[CellRow]) -> None:
    assert "undertrained" not in " ".join(read_grid(rows))


def test_too_few_images_claim_nothing() -> None:
    rows = [row(5, 0.0, 80.0), row(50, 0.0, 12.0, groups=1)]
    assert read_grid(rows) == [
        "There are too few images for intervals, so no difference is claimed."
    ]


def test_single_cell_and_no_cell_have_a_sentence() -> None:
    assert read_grid([row(5, 0.0, 80.0)]) == [
        "The only cell is S = 5, eta = 0: FID 80.00 [79.50, 80.50]."
    ]
    assert read_grid([]) == ["No cell has a score."]


def test_holes_in_the_grid_break_nothing() -> None:
    for missing in range(len(PAPER)):
        rows = PAPER[:missing] + PAPER[missing + 1 :]
        assert read_grid(rows)[0].startswith("The lowest FID is")


def judged(scale: float, share: float) -> CellRow:
    return replace(
        row(10, 0.0, 6.0), guidance_scale=scale, class_accuracy=share,
        class_accuracy_low=share - 0.05, class_accuracy_high=share + 0.05,
    )  # fmt: skip


def test_guidance_is_read_as_raising_the_asked_class_only_beyond_both_intervals() -> None:
    said = " ".join(read_grid([judged(0.0, 0.1), judged(1.0, 0.5), judged(3.0, 0.9)]))
    assert "in 1 of 1 settings; at S = 10: from 10.0 % [5.0, 15.0] to 90.0 % [85.0, 95.0]" in said
    assert "rises nowhere" in " ".join(read_grid([judged(0.0, 0.85), judged(3.0, 0.9)]))
    assert "guidance" not in " ".join(read_grid([judged(1.0, 0.5)]))


def test_a_guided_line_has_a_name_of_its_own() -> None:
    assert line_name(judged(3.0, 0.5)) == "eta = 0 (g = 3)"
    assert line_name(judged(1.0, 0.5)) == "eta = 0"
