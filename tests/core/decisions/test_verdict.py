"""A verdict finds what is there, calls equal checkpoints tied, and refuses unlike protocols."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddim_core.decisions.checkpoints.verdict import (
    IDENTICAL,
    judge,
    one_row_a_cell,
    pareto,
    proven_steps,
)
from ddim_core.decisions.measure import MEASURES
from ddim_core.decisions.row import CellRow
from ddim_core.reports.verdicts.figures import checkpoint_curve, pareto_plot
from ddim_core.reports.verdicts.sentences import by_checkpoint, headline, read_verdict
from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.distances.frechet_score import frechet_interval
from ddim_core.statistics.moments import FeatureMoments
from tests.core.rows import cell_row

D, N = 8, 400
Rows = list[CellRow]
SETTINGS = [(steps, eta) for eta in (0.0, 1.0) for steps in (5, 10, 20)]
REFERENCE = Reference.of(
    FeatureMoments.from_features(np.random.default_rng(9).normal(size=(2000, D)).astype(np.float32))
)


def grid(
    name: str, quality: float, noise: int, training_step: int | None = None, only: int = 6
) -> Rows:
    """Rows of a checkpoint whose features miss the reference by `quality` + 1 / S.

    Nine tenths of the noise are shared by its cells, as those of a grid share x_T.
    """
    rows = []
    shared = np.random.default_rng(noise).normal(size=(N, D))
    for i, (steps, eta) in enumerate(SETTINGS[:only]):
        drawn = 0.9 * shared + 0.19**0.5 * np.random.default_rng([noise, i]).normal(size=(N, D))
        features = (drawn + (quality + 1.0 / steps) / np.sqrt(D)).astype(np.float32)
        rows.append(cell_row(**{
            "cell_digest": f"{name}-{i}", "checkpoint": name, "checkpoint_digest": name,
            "weights_digest": name, "training_step": training_step, "steps": steps, "eta": eta,
            "variance": "eta", "spacing": "uniform", "clip": False, "guidance_scale": 1.0,
            "seed": 0, "shard_size": 100, "resolution": 8, "resize": "native", "dtype": "float32",
            "extractor_digest": "e", "reference_digest": "r", "nfe": steps,
            "created_at": f"2026-01-01T00:00:{len(name):02d}",
            **scored(features),
        }))  # fmt: skip
    return rows


def scored(features: NDArray[np.float32]) -> dict[str, Any]:
    """The columns that a verdict reads, as `ddim_core.scores.cell_score` fills them from 20
    groups."""
    groups = [FeatureMoments.from_features(group) for group in np.split(features, 20)]
    score = frechet_interval(groups, REFERENCE)
    return {
        "n_images": N, "n_reference": 2000, "fid": score.fid, "fid_low": score.fid_low,
        "fid_high": score.fid_high, "fid_leave_one_out": list(score.loo),
        "group_sizes": list(score.sizes),
    }  # fmt: skip


@pytest.fixture(scope="module")
def old() -> Rows:
    return grid("old", 0.3, noise=1, training_step=100)


@pytest.fixture(scope="module")
def worse() -> Rows:
    return grid("worse", 0.6, noise=1, training_step=200)


def test_a_regression_is_found_at_the_operating_point_and_in_every_cell(
    old: Rows, worse: Rows
) -> None:
    found = judge(worse, old)
    assert found.call == "worse"
    assert [cell.call for cell in found.cells] == ["worse"] * 6
    assert found.point is not None
    assert found.point.new.steps == 20  # the best of both
    assert headline(found).startswith("Worse at S = 20")


def test_exchanged_checkpoints_get_the_opposite_verdict(old: Rows, worse: Rows) -> None:
    one, other = judge(worse, old), judge(old, worse)
    assert one.point is not None
    assert other.point is not None
    assert (one.call, other.call) == ("worse", "better")
    assert one.point.name == other.point.name
    assert one.point.difference == pytest.approx(-other.point.difference)  # type: ignore[operator]
    assert one.point.p_value == pytest.approx(other.point.p_value)


def test_shared_noise_shows_a_difference_that_other_noise_hides(old: Rows) -> None:
    assert judge(grid("new", 0.33, noise=1), old).call == "worse"
    assert judge(grid("new", 0.33, noise=2), old).call == "tied"


def test_equal_checkpoints_are_tied_at_about_the_level() -> None:
    pairs = [
        (grid("a", 0.3, 1000 + i, only=3), grid("b", 0.3, 5000 + i, only=3)) for i in range(60)
    ]
    alarms = sum(judge(a, b).call != "tied" for a, b in pairs)
    # Binomial, 60 at 0.05: more than 9 with probability 0.0007. Many more, on a real model's
    # images, are recorded by benchmarks/verdict_level.py.
    assert alarms <= 9


def test_the_operating_point_can_be_given(old: Rows, worse: Rows) -> None:
    found = judge(worse, old, at="5,1")
    assert found.point is not None
    assert found.point.name == "S = 5, eta = 1"
    with pytest.raises(ValueError, match="no cell '7,0'"):
        judge(worse, old, at="7,0")


def test_a_margin_forgives_what_lies_within_it(old: Rows, worse: Rows) -> None:
    gap = judge(worse, old).point
    assert gap is not None
    assert gap.difference is not None
    assert judge(worse, old, margin=2 * gap.difference).call == "tied"
    assert judge(worse, old, margin=0.1 * gap.difference).call == "worse"
    with pytest.raises(ValueError, match="margin is -1"):
        judge(worse, old, margin=-1)


def test_rows_of_different_protocol_are_refused_with_the_fields_named(old: Rows) -> None:
    other = [replace(row, extractor_digest="f", seed=3) for row in old]
    with pytest.raises(ValueError, match=r"extractor_digest \(f and e\), seed \(3 and 0\)"):
        judge(other, old)


def test_grids_without_a_common_cell_are_refused(old: Rows) -> None:
    with pytest.raises(ValueError, match="no cell in common"):
        judge([row for row in old if row.steps == 5], [row for row in old if row.steps > 5])


def test_too_few_images_for_intervals_leave_it_untested(old: Rows) -> None:
    few = [replace(row, fid_leave_one_out=[], fid_low=None, fid_high=None) for row in old]
    found = judge(few, few)
    assert found.call == "untested"
    assert "too few images" in read_verdict(found, few, [few])[0]


def test_the_front_holds_what_nothing_beats_in_cost_and_fid(old: Rows) -> None:
    front = pareto(old)
    for row in old:
        beaten = [r for r in old if r.nfe <= row.nfe and r.fid < row.fid]
        assert (row in front) == (not beaten)
    twin = replace(grid("twin", 0.3, noise=3)[2], nfe=99)
    assert proven_steps([old[0], old[2], twin]) == [True, True, False]


def test_the_reading_tells_the_front_the_best_cell_and_its_drift(old: Rows, worse: Rows) -> None:
    said = " ".join(read_verdict(judge(worse, old), worse, [old, worse]))
    assert "All 6 cells, corrected for 6 comparisons (Holm), are worse." in said
    mixed = [worse[0], *old[1:]]
    assert "1 worse (S = 5, eta = 0), 5 tied" in " ".join(
        read_verdict(judge(mixed, old), mixed, [])
    )
    assert "Pareto front" in said
    assert "The best cell" in said
    assert "Identical" in read_verdict(IDENTICAL, [], [])[0]


def test_a_moved_best_cell_is_called_proven_only_beyond_chance(old: Rows) -> None:
    best = judge(old, old).point
    assert best is not None
    now = [row if row.steps != best.new.steps else replace(row, fid=row.fid + 1.0) for row in old]
    said = " ".join(read_verdict(judge(now, old), now, [old, now]))
    assert "The best cell moved from S = 20" in said
    assert "keeping the old one would cost" in said


@pytest.mark.parametrize("where", [{"guidance_interval": "0,0.7"}, {"guidance_channels": 3}])
def test_cells_that_are_guided_elsewhere_are_no_pair(
    old: Rows, worse: Rows, where: dict[str, Any]
) -> None:
    elsewhere = [replace(row, **where) for row in worse]
    assert len(judge([*worse, *elsewhere], old).cells) == len(old)
    with pytest.raises(ValueError, match="no cell in common"):
        judge(elsewhere, old)


def test_checkpoints_are_ordered_by_step_or_else_by_age(old: Rows, worse: Rows) -> None:
    assert [rows[0].checkpoint for rows in by_checkpoint([*worse, *old])] == ["old", "worse"]
    ageless = [replace(row, training_step=None) for row in [*worse, *old]]
    assert [rows[0].checkpoint for rows in by_checkpoint(ageless)] == ["old", "worse"]


def test_the_figures_are_drawn(old: Rows, worse: Rows) -> None:
    names = ["S = 10, eta = 0", "S = 20, eta = 1"]
    for png in (
        pareto_plot(old),
        checkpoint_curve([old, worse], names),
        checkpoint_curve([[replace(row, training_step=None) for row in old]], names),
    ):
        assert png.startswith(b"\x89PNG")


def test_a_cell_that_was_drawn_on_two_devices_counts_once(old: Rows, worse: Rows) -> None:
    old, worse = ([replace(row, device="cpu") for row in rows] for rows in (old, worse))
    carded = [replace(row, device="cuda", created_at="2027-01-01T00:00:00") for row in old[:2]]
    newer = [replace(row, images_at_once=8, created_at="2027-01-02T00:00:00") for row in old[:1]]
    again = [replace(row, created_at="2027-01-03T00:00:00") for row in old[:1]]
    assert one_row_a_cell([*old, *again], "cpu") == [*old, *again]  # of one place all stay
    other = [replace(row, prompts_digest="p", device="cuda") for row in old[:1]]
    assert one_row_a_cell([*old, *other], "cpu") == [*old, *other]  # of other prompts too
    judged = [replace(row, image_scores='{"aesthetic": "w"}') for row in old[:1]]
    assert one_row_a_cell([*old, *judged], "cpu") == [*old[1:], *judged]  # the same images
    both = [*old, *carded, *newer]
    assert one_row_a_cell(both, "cpu") == [*old[1:], *newer]
    assert one_row_a_cell(both, "cuda") == [*old[2:], *carded]
    assert one_row_a_cell([*both, *worse], "cuda") == [*old[2:], *carded, *worse]
    said = read_verdict(judge(carded, old), carded, [old, carded])
    assert "were drawn on cuda and cpu, whose arithmetic rounds differently" in said[1]
    assert not any("drawn on" in line for line in read_verdict(judge(worse, old), worse, [old]))


def liked(rows: Rows, by: float, weights: str = "w", own: float = 0.001) -> Rows:
    """The same rows with an ImageReward of each, which scatters together and by `own` alone."""
    shared, found = 0.05 * np.random.default_rng(3).standard_normal(20), []
    for i, row in enumerate(rows):
        alone = own * np.random.default_rng([i, len(row.checkpoint)]).standard_normal(20)
        value = by + 0.01 * i
        found.append(replace(
            row, image_reward=value, image_reward_low=value - 0.1, image_reward_high=value + 0.1,
            image_reward_leave_one_out=(value + shared + alone).tolist(),
            image_scores=f'{{"image_reward": "{weights}"}}',
        ))  # fmt: skip
    return found


def test_the_score_that_is_asked_for_decides_the_verdict(old: Rows, worse: Rows) -> None:
    reward = MEASURES["image_reward"]
    ours, theirs = liked(worse, -0.3), liked(old, -0.5)
    found = judge(ours, theirs, measure=reward)
    assert (found.call, judge(ours, theirs).call) == ("better", "worse")
    assert found.point is not None
    assert found.point.difference == pytest.approx(0.2)
    assert found.point.new is ours[-1]  # the highest of both
    assert judge(theirs, ours, measure=reward).call == "worse"
    assert judge(ours, theirs, margin=0.3, measure=reward).call == "tied"
    said = " ".join(read_verdict(found, ours, [theirs, ours]))
    assert said.startswith("Better at S = 20, eta = 1: ImageReward -0.250 [-0.350, -0.150] against")
    assert "Of the new checkpoint: the highest ImageReward is -0.250" in said
    assert "FID" not in said
    assert [row.nfe for row in pareto(ours, reward)] == [5, 10, 20]  # each later cell has more
    for png in (pareto_plot(ours, reward),
                checkpoint_curve([theirs, ours], [found.point.name], reward)):  # fmt: skip
        assert png.startswith(b"\x89PNG")


def test_scores_by_other_weights_or_without_a_value_are_refused(old: Rows, worse: Rows) -> None:
    reward = MEASURES["image_reward"]
    with pytest.raises(ValueError, match="image_scores is"):
        judge(liked(worse, 0.3), liked(old, 0.5, weights="v2"), measure=reward)
    judge(liked(worse, 0.3), liked(old, 0.5, weights="v2"))  # by FID they do not count
    with pytest.raises(
        ValueError, match=r"image_reward decides, and S = 5, eta = 0 of old \(cell "
    ):
        judge(liked(worse, 0.3), old, measure=reward)
