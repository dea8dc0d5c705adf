"""A verdict with twins: training noise is called tied and said, more is called, and checkpoints
that are no twins are refused by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddim_core.decisions.checkpoints.twins import (
    beyond_training_noise,
    noise_over_steps,
    reach_at,
)
from ddim_core.decisions.checkpoints.verdict import IDENTICAL, judge
from ddim_core.decisions.measure import measure_of
from ddim_core.reports.verdicts.sentences import read_verdict
from tests.core.decisions.test_verdict import Rows, grid

QUALITIES = {"a": 0.30, "b": 0.34, "c": 0.38, "d": 0.36, "e": 0.32}


@pytest.fixture(scope="module")
def twins() -> list[Rows]:
    """Five trainings, of which sampling tells most apart."""
    return [grid(name, q, noise=1, training_step=100) for name, q in QUALITIES.items()]


def test_a_difference_that_trainings_have_is_tied_and_said_to_be_within_training_noise(
    twins: list[Rows],
) -> None:
    plain = judge(grid("new", 0.33, 1), grid("old", 0.31, 1))
    found = beyond_training_noise(plain, twins)
    assert (plain.call, found.call) == ("worse", "tied")
    assert found.point is not None
    assert found.point.within_noise
    said = read_verdict(found, [cell.new for cell in found.cells], [])
    assert said[1].startswith("The difference is within training noise: 5 trainings of one recipe")
    assert "(`a`, `b`, `c`, `d`, `e`)" in said[1]
    assert "with 8 the factor would be 2.36" in said[1]


def test_more_than_training_noise_is_called_and_two_twins_tell_less_than_five(
    twins: list[Rows],
) -> None:
    worse = judge(grid("new", 0.9, 1), grid("old", 0.3, 1))
    found = beyond_training_noise(worse, twins)
    assert found.call == "worse"
    said = read_verdict(found, [cell.new for cell in found.cells], [])
    assert said[1].startswith("The difference is more than training noise")
    few = beyond_training_noise(worse, twins[:3])
    assert few.point is not None
    assert found.point is not None
    assert few.point.p_value > found.point.p_value  # type: ignore[operator]
    narrow = judge(grid("new", 0.42, 1), grid("old", 0.3, 1))
    assert beyond_training_noise(narrow, twins[1:3]).call == "tied"


def test_the_sentence_says_what_the_headline_says(twins: list[Rows]) -> None:
    said = set()
    for quality in (0.33, 0.5, 0.6, 0.7, 0.9):  # in some the operating point alone is told apart
        for k in (2, 3, 5):
            plain = judge(grid("new", quality, 1), grid("old", 0.3, 1))
            found = beyond_training_noise(plain, twins[:k])
            first, second, *_ = read_verdict(found, [cell.new for cell in found.cells], [])
            assert first.startswith("Tied") != second.startswith("The difference is more than")
            said |= {found.call}
    assert said == {"tied", "worse"}


def test_another_score_that_decides_has_the_training_noise_of_its_own(twins: list[Rows]) -> None:
    def rewarded(rows: Rows) -> Rows:
        return [
            replace(
                row, fid=1.0, fid_leave_one_out=[1.0] * 20, clip_score=-row.fid,
                clip_score_leave_one_out=[-x for x in row.fid_leave_one_out],
            )
            for row in rows
        ]  # fmt: skip

    new, old = grid("new", 0.6, 1), grid("old", 0.3, 1)
    by_fid = beyond_training_noise(judge(new, old), twins)
    plain = judge(rewarded(new), rewarded(old), measure=measure_of("clip_score"))
    found = beyond_training_noise(plain, [rewarded(rows) for rows in twins])
    assert [cell.call for cell in found.cells] == [cell.call for cell in by_fid.cells]
    assert found.point is not None
    assert by_fid.point is not None
    assert found.point.noise is not None
    assert found.point.noise.sd == pytest.approx(by_fid.point.noise.sd)  # type: ignore[union-attr]
    assert "of CLIPScore" in read_verdict(found, [cell.new for cell in found.cells], [])[1]


def test_no_call_is_won_by_twins_that_happen_to_lie_close(twins: list[Rows]) -> None:
    plain = judge(grid("new", 0.3, 3), grid("old", 0.3, 4))
    close = [twins[0], [replace(row, weights_digest="f", fid=row.fid + 1e-9) for row in twins[0]]]
    assert (plain.call, beyond_training_noise(plain, close).call) == ("tied", "tied")


def test_what_is_no_twin_is_refused_by_name(twins: list[Rows]) -> None:
    plain = judge(grid("new", 0.33, 1), grid("old", 0.31, 1))
    seeded = [replace(row, seed=3, extractor_digest="f") for row in twins[1]]
    later = [replace(row, training_step=200) for row in twins[1]]
    again = [replace(row, checkpoint="copy") for row in twins[0]]
    for others, message in (
        ([], "a alone tells no spread between trainings; name at least 2"),
        ([seeded], r"b is no twin: .* differ in extractor_digest \(f and e\), seed \(3 and 0\)"),
        ([later], r"a and b have different training steps \(100 and 200\)"),
        ([again], r"a and copy are the same weights \(a\)"),
        ([twins[1][:5]], "the twin b has no cell 'S = 20, eta = 1'; score it with the same grid"),
    ):
        with pytest.raises(ValueError, match=message):
            beyond_training_noise(plain, [twins[0], *others])
    assert beyond_training_noise(IDENTICAL, twins) is IDENTICAL


def test_a_curve_has_a_band_at_each_step_where_there_are_twins(twins: list[Rows]) -> None:
    late = [
        [replace(row, training_step=300, weights_digest=row.weights_digest + "3") for row in rows]
        for rows in twins[:2]
    ]
    noise = noise_over_steps([*twins, *late], twins[0][:2])
    assert [list(noise), [[at.step for at in found] for found in noise.values()]] == [
        ["S = 5, eta = 0", "S = 10, eta = 0"], [[100, 300], [100, 300]],
    ]  # fmt: skip
    reaches = [at.noise.reach() for at in noise["S = 5, eta = 0"]]
    found = [reach_at(noise["S = 5, eta = 0"], step) for step in (0, 100, 200, 300, None)]
    assert found == pytest.approx([reaches[0], reaches[0], sum(reaches) / 2, reaches[1],
                                   max(reaches)])  # fmt: skip
    with pytest.raises(ValueError, match="a alone tells no spread"):
        noise_over_steps([*late, twins[0]], twins[0][:1])
