"""Cells compared image by image: which rows may be, and how many images it takes."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ddim_core.decisions.by_image import (
    images_needed,
    read_image_scores,
    score_difference,
    shared_scores,
)
from ddim_core.decisions.row import CellRow
from ddim_core.image_scores.mean import image_by_image, mean_score
from ddim_core.statistics.paired import PairedDifference
from tests.core.rows import cell_row

N, GROUPS = 200, 10


def row(values: np.ndarray, fid: float, steps: int, **more: Any) -> CellRow:
    """A row with a CLIPScore of these images, and an FID that scatters by 0.1."""
    found = mean_score(values, [N // GROUPS] * GROUPS, more.get("image_score_prompts"))
    loo = fid + 0.1 * np.random.default_rng(steps).standard_normal(GROUPS)
    told: dict[str, Any] = {
        "cell_digest": f"{steps:064}", "steps": steps, "eta": 0.0, "variance": "eta", "seed": 0,
        "n_images": N, "resolution": 16, "prompts_digest": "p", "fid": fid,
        "fid_leave_one_out": loo.tolist(), "group_sizes": [N // GROUPS] * GROUPS,
        "clip_score": found.value, "clip_score_low": found.low, "clip_score_high": found.high,
        "clip_score_leave_one_out": found.leave_one_out,
        "image_scores": json.dumps({"clip_score": "w"}),
    }  # fmt: skip
    return cell_row(**told | more)


@pytest.fixture
def pictures() -> list[np.ndarray]:
    """Three cells of the same prompts and noise; the second is better by 0.01."""
    random = np.random.default_rng(3)
    shared = random.normal(0.7, 0.1, N)
    return [
        (shared + shift + random.normal(0.0, 0.02, N)).astype(np.float32)
        for shift in (0.0, 0.01, 0.0)
    ]


def test_rows_judged_by_other_weights_or_of_other_noise_are_never_compared(
    pictures: list[np.ndarray],
) -> None:
    one, two = row(pictures[0], 8.0, 10), row(pictures[1], 9.0, 20)
    found = score_difference(two, one, "clip_score", pictures[1], pictures[0])
    assert found == image_by_image(pictures[1], pictures[0])
    assert shared_scores([one, two]) == ("clip_score",)
    for other, said in (
        ({"image_scores": json.dumps({"clip_score": "v"})}, r"by other weights or none \(w and v"),
        ({"image_scores": None}, r"by other weights or none \(w and none\)"),
        ({"image_scores": "[broken"}, "run both with the same --image-scores"),
        ({"seed": 1}, "no pairs: seed is 0 and 1"),
        ({"prompts_digest": "q"}, "no pairs: prompts_digest is 'p' and 'q'"),
    ):  # fmt: skip
        apart = row(pictures[1], 9.0, 20, **other)
        assert shared_scores([one, apart]) == ()
        with pytest.raises(ValueError, match=said):
            score_difference(one, apart, "clip_score", pictures[0], pictures[1])


def test_as_many_images_as_it_says_tell_a_difference_in_80_of_100_tries() -> None:
    true, spread = 0.01, 0.05
    needed = images_needed(100, PairedDifference(true, spread / 10.0, 0.0, 0.0, 0.0))
    assert needed == 197  # ((1.96 + 0.84) spread / true)^2
    random = np.random.default_rng(0)
    tries = random.normal(true, spread, (4000, needed))
    passed = (stats.ttest_1samp(tries, 0.0, axis=1).pvalue < 0.05).mean()
    assert passed == pytest.approx(0.8, abs=0.03)  # four standard errors of 4000 tries: 0.025
    assert images_needed(100, PairedDifference(0.0, 1.0, 0.0, 0.0, 1.0)) is None


def test_sentences_name_the_best_cell_and_both_counts(pictures: list[np.ndarray]) -> None:
    rows = [
        row(x, fid, s) for x, fid, s in zip(pictures, (8.0, 8.1, 9.0), (10, 20, 50), strict=True)
    ]
    best, needed = read_image_scores(rows, {"clip_score": pictures})
    assert best.startswith("clip_score is highest at S = 20, eta = 0: 0.7")
    assert "200 images, interval over images; image by image 2 of 2 other cells are lower" in best
    assert needed.startswith("To tell S = 10, eta = 0 from S = 20, eta = 0, the two cells of")
    counts = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) images a cell", needed)]
    pair = image_by_image(pictures[0], pictures[1])
    assert pair is not None
    assert counts[1] == pytest.approx(images_needed(N, pair), rel=0.05)  # two digits are shown
    assert counts[1] < N < counts[0]
    pair_of_cells = read_image_scores(rows[:2], {"clip_score": pictures[:2]})
    assert pair_of_cells[0].endswith("image by image the other cell is lower.")
    assert read_image_scores(rows[:1], {"clip_score": pictures[:1]})[0].endswith("over images.")
    prompts = [
        row(x, 8.0, s, image_score_prompts=20) for x, s in zip(pictures, (1, 2, 3), strict=True)
    ]
    assert (
        "interval over the means of 20 prompts"
        in read_image_scores(prompts, {"clip_score": pictures})[0]
    )
    assert read_image_scores([cell_row(seed=0)], {}) == []
