"""The computed sentences, on rows made so that the right sentence is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ddim_core.decisions.best import Margin
from ddim_core.decisions.compare import difference
from ddim_core.decisions.measure import FID, MEASURES
from ddim_core.decisions.race import Outcome, Rules, Ruling
from ddim_core.decisions.row import CellRow, cell_name, line_name
from ddim_core.reports.grid_sentences import CLIPS, lines, read_grid
from ddim_core.reports.race_sentences import cost_sentence
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
        n_images=groups * SIZE,
        checkpoint="faces",
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
    best, take, trend, order, pairing = read_grid(PAPER)
    assert best.startswith("The lowest FID is 6.00 [5.50, 6.50] at S = 50, eta = 1;")
    assert "every other cell is worse beyond its interval" in best
    assert take.startswith("Only the lowest itself is shown to be within 0.12 of the best (2 % of")
    assert take.endswith("so S = 50, eta = 1, 50 network calls an image, is recommended.")
    assert trend == (
        "With more steps FID falls on every line of the grid: at eta = 0, eta = 1, sigma-hat (all "
        "pairs of S on a line compared, corrected for 9)."
    )
    assert "eta = 0 beats eta = 1, sigma-hat; eta = 1 beats sigma-hat" in order
    assert "At S = 10" in order
    assert "(median of 36 pairs" in pairing
    assert "share of images that the same interval takes" in pairing


def test_a_line_that_clips_says_so_and_so_does_what_is_compared_with_it() -> None:
    clipped = [replace(r, clip=r.variance == "sigma_hat") for r in PAPER]
    assert line_name(clipped[-1]) == "sigma-hat (clips)"
    assert line_name(replace(clipped[-1], guidance_scale=3.0)) == "sigma-hat (clips, guidance 3)"
    assert line_name(replace(row(5, 0.2, 1.0), clip=True)) == "eta = 0.2 (clips)"
    said = CLIPS.format(why=", as the official DDIM code does for sigma-hat")
    assert read_grid(clipped)[-1] == said
    few = [replace(r, fid_leave_one_out=[]) for r in clipped]
    assert read_grid(few)[-1] == said
    assert "Lines marked" not in " ".join(read_grid([replace(r, clip=True) for r in PAPER]))
    ddpm = replace(clipped[0], sampler="ddpm", scheduler_config="{}", clip=True)
    assert read_grid([*few, ddpm])[-1] == CLIPS.format(why="")


def test_ties_say_how_much_worse_they_may_be_and_how_many_images_decide() -> None:
    rows = [row(10, 0.0, 6.01, own=0.02), row(50, 0.0, 6.0, own=0.02), row(5, 0.0, 30.0)]
    best, take, *_ = read_grid(rows)
    assert "one other cell cannot be told from the best: S = 10, eta = 0 may be up to 0." in best
    assert " worse (N = " in best
    assert "would decide it) (intervals hold for all cells together)." in best
    assert take.startswith("No cell is shown to be within 0.12 of the best (2 % of the lowest FID)")
    assert "so none is recommended; N = " in take
    assert take.endswith(" images a cell would settle all, if the numbers stay.")
    wide = read_grid(rows, margin=Margin(1.0, "as asked"))[1]
    assert wide == (
        "2 cells are shown to be within 1.00 of the best (as asked): the cheapest of them, S = 10, "
        "eta = 0, 10 network calls an image, is recommended."
    )
    more = read_grid([*rows, row(20, 0.0, 6.02, own=0.02)])[0]
    assert "2 other cells cannot be told from the best: S = 10, eta = 0 may be" in more


def test_difference_is_paired_so_shared_scatter_does_not_hide_it() -> None:
    quiet = difference(row(10, 1.0, 6.2), row(10, 0.0, 6.0))
    assert quiet.value == pytest.approx(0.2)
    assert quiet.low > 0  # although each alone is known to 0.5 only
    loud = difference(row(10, 1.0, 6.2, own=0.3), row(10, 0.0, 6.0, own=0.3))
    assert loud.low < 0 < loud.high


def test_no_claim_where_nothing_differs() -> None:
    rows = [row(s, eta, 6.0, own=0.2) for s in (5, 10) for eta in (0.0, 1.0)]
    text = " ".join(read_grid(rows))
    assert "3 other cells cannot be told from the best" in text
    assert "FID shows no difference beyond its intervals on every line of the grid: at" in text
    assert "At S = 10 no line of the grid can be told from another" in text
    assert "buys next to nothing of this kind: one or both with eta = 1." in text
    assert not any(claim in text for claim in ("falls", "rises", "beats", "inverted"))


def test_lines_that_fall_rise_and_stay_are_told_apart() -> None:
    rows = [
        row(5, 0.0, 30.0), row(50, 0.0, 10.0), row(5, 0.5, 10.0), row(50, 0.5, 30.0),
        row(5, 1.0, 20.0, own=0.2), row(50, 1.0, 20.01, own=0.2),
    ]  # fmt: skip
    trend, inverted = read_grid(rows)[2:4]
    assert "FID falls at eta = 0; rises at eta = 0.5; shows no difference" in trend
    assert "beyond its intervals at eta = 1 (" in trend
    assert inverted.startswith("The trend is inverted on some lines, more steps make it worse (eta")
    assert "Noise on the way may mend part of it on the others." in inverted


def test_a_line_that_turns_or_levels_off_says_where() -> None:
    rows = [row(s, 0.0, v) for s, v in ((5, 30.0), (10, 9.0), (20, 9.0), (50, 20.0))]
    rows += [row(s, 1.0, v) for s, v in ((5, 30.0), (10, 20.0), (20, 9.0), (50, 9.0))]
    trend = read_grid(rows)[2]
    assert "FID falls at eta = 1 (level from S = 20 on, within 0." in trend
    assert "falls and then rises (a U) at eta = 0 (turning near S = " in trend


def test_the_labs_grid_is_called_inverted_whatever_eta_does_and_no_cause_is_stated() -> None:
    lab = {0.0: (541.0, 921.0, 1267.0, 1479.0), 1.0: (570.0, 616.0, 716.0, 700.0)}
    rows = [
        row(steps, eta, fid, own=3.0 / 9.0)
        for eta, fids in lab.items()
        for steps, fid in zip((5, 10, 20, 50), fids, strict=True)
    ]
    trend, inverted = read_grid(rows)[2:4]
    assert "FID rises at eta = 0; rises and then falls (a hump) at eta = 1 (turning near S" in trend
    assert inverted.startswith(
        "The trend is inverted on every line, more steps make it worse (eta = 0: 541.00 at S = 5, "
        "1479.00 at S = 50; eta = 1: 570.00 at S = 5, 716.00 at S = 20). Possible causes, which "
        "these numbers cannot tell apart: "
    )
    for cause in ("not trained enough", "noise schedule", "wrong order", "decoded", "reference"):
        assert cause in inverted
    # Whatever eta does: where the noisy line is the worse one at every S, it is inverted too.
    worse = [replace(r, fid=r.fid + 2000.0, fid_leave_one_out=[x + 2000.0 for x in
             r.fid_leave_one_out]) if r.eta else r for r in rows]  # fmt: skip
    assert "inverted on every line" in " ".join(read_grid(worse))


@pytest.mark.parametrize(
    "rows",
    [
        PAPER,
        # the rise is within its interval
        [row(5, 0.0, 20.0, own=0.3), row(50, 0.0, 20.1, own=0.3), row(50, 1.0, 5.0)],
        # more steps than a few make it worse, but not worse than the fewest
        [row(5, 0.0, 30.0), row(10, 0.0, 10.0), row(50, 0.0, 20.0)],
    ],
)
def test_an_inverted_trend_is_not_claimed_without_its_sign(rows: list[CellRow]) -> None:
    assert "inverted" not in " ".join(read_grid(rows))


def test_the_score_that_decides_is_the_one_that_is_read() -> None:
    def liked(steps: int, eta: float, value: float) -> CellRow:
        of = row(steps, eta, 90.0 - 80.0 * value)
        loo = [value + x - of.fid for x in row(steps, eta, of.fid, own=0.001).fid_leave_one_out]
        return replace(of, hpsv2=value, hpsv2_low=value, hpsv2_high=value, hpsv2_leave_one_out=loo)

    rows = [liked(5, 0.0, 0.2), liked(10, 0.0, 0.3), liked(5, 1.0, 0.1), liked(10, 1.0, 0.15)]
    said = " ".join(read_grid(rows, MEASURES["hpsv2"]))
    assert said.startswith("The highest HPSv2 is 0.300 [0.300, 0.300] at S = 10, eta = 0; every")
    assert "With more steps HPSv2 rises on every line" in said
    assert "eta = 0 beats eta = 1" in said
    assert "FID" not in said
    with pytest.raises(ValueError, match="aesthetic decides, and S = 5, eta = 0 of faces"):
        read_grid(rows, MEASURES["aesthetic"])


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
    assert line_name(judged(3.0, 0.5)) == "eta = 0 (guidance 3)"
    assert line_name(judged(1.0, 0.5)) == "eta = 0"


@pytest.mark.parametrize(
    ("each", "why"),
    [(400, "The budget is spent."), (1000, "Each open cell has its 1000 images; N = ")],
)
def test_a_race_says_what_ended_it(each: int, why: str) -> None:
    rows = {i: replace(row(10, i, 1.0 + i / 10, own=0.1), n_images=each) for i in (0, 1)}
    open_ = tuple(Ruling("open", each) for _ in rows)
    outcome = Outcome(open_, False, 0, 2 * each, 2000, (1, 1), FID)
    said = cost_sentence(rows, outcome, Rules("best", 0.95, 2 * each, 2, 1000))
    assert "in 1 of 1 round, " in said
    assert why in said
