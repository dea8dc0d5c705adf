"""What tuned cells bought: proven beside as many calls, matched with more, corrected together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ddim_core.decisions.bought import bought
from ddim_core.decisions.compare import difference
from ddim_core.decisions.row import CellRow
from ddim_core.reports.tuning import (
    headline,
    is_tuned,
    read_bought,
    read_heed,
    read_known,
    read_narrowed,
    short,
    usual_courses,
)
from tests.core.decisions.test_compare import row

LISTED = "dpmpp_2m?timesteps=[685,356,185,50]"


def cell(name: str, fid: float, sampler: str, nfe: int, **more: Any) -> CellRow:
    return row(
        name, fid, 0.001, sampler=sampler, nfe=nfe, steps=nfe, guidance_scale=1.0, eta=0.0,
        scheduler_config="{}", variance="scheduler", clip=False, loras=None, **more,
    )  # fmt: skip


TUNED = cell("a", 1.0, LISTED, 4)
STOCK = [
    cell("b", 3.0, "dpmpp_2m", 4), cell("c", 2.0, "unipc", 4), cell("d", 1.5, "dpmpp_2m", 5),
    cell("e", 1.05, "unipc", 5), cell("f", 1.02, "dpmpp_2m", 10), cell("g", 0.7, "unipc", 20),
]  # fmt: skip


def test_a_tuned_cell_beats_its_equals_and_matches_dearer_ones() -> None:
    (found,) = bought([TUNED], STOCK, margin=0.1)
    assert found.rival is STOCK[1]
    assert found.against is not None
    assert found.against.value == pytest.approx(-1.0)
    assert found.proven
    assert found.matched is STOCK[4]  # 20 calls are better by .3, and so not matched
    assert found.p_matched is not None
    assert found.p_matched < 0.05


def test_a_weak_setting_of_many_calls_is_no_match() -> None:
    weak = cell("k", 5.0, "ddim", 50)
    (found,) = bought([TUNED], [*STOCK, weak], margin=0.1)
    assert found.matched is STOCK[4]


def test_a_setting_that_is_better_ends_what_is_matched() -> None:
    better = cell("q", 0.5, "unipc", 5)
    (found,) = bought([TUNED], [*STOCK, better], margin=0.1)
    assert found.proven
    assert found.matched is None


def test_one_equal_that_is_not_beaten_is_no_proof() -> None:
    near = cell("h", 1.0, "deis", 4)
    (found,) = bought([TUNED], [*STOCK, near], margin=0.1)
    assert found.rival is near
    assert not found.proven


def test_a_margin_of_nothing_matches_only_what_is_proven_better() -> None:
    equal = cell("i", 1.0, "heun", 10)
    (found,) = bought([TUNED], [equal], margin=0.0)
    assert found.matched is None
    (found,) = bought([TUNED], [equal], margin=0.5)
    assert found.matched is equal


def test_more_tests_make_each_p_value_larger() -> None:
    (alone,) = bought([TUNED], STOCK[1:2], margin=0.1)
    (among,) = bought([TUNED], STOCK, margin=0.1)
    assert alone.against is not None
    assert among.against is not None
    assert among.against.p_adjusted >= alone.against.p_adjusted
    assert among.against.p_value == alone.against.p_value
    ends = difference(TUNED, STOCK[1]).interval(2, len(TUNED.group_sizes))  # one test each way
    assert (alone.against.low, alone.against.high) == pytest.approx(ends)
    assert among.against.low < alone.against.low


@pytest.mark.parametrize(
    ("name", "value"),
    [("guidance_scale", 4.0), ("guidance_channels", 3)],
)
def test_other_guidance_is_another_question(name: str, value: object) -> None:
    other = cell("j", 9.0, "dpmpp_2m", 4)
    object.__setattr__(other, name, value)
    (found,) = bought([TUNED], [other], margin=0.1)
    assert (found.rival, found.proven, found.matched) == (None, False, None)


def test_a_cheaper_setting_that_is_better_is_matched_by_nothing() -> None:
    better = cell("l", 0.5, "unipc", 4)
    (found,) = bought([TUNED], [better, cell("m", 1.5, "ddim", 10)], margin=0.1)
    assert not found.proven
    assert found.matched is None


FOUND = {(LISTED, 1.0, None)}


def test_sentences_say_what_was_bought() -> None:
    (said,) = read_bought([TUNED, *STOCK], FOUND, 0.1)
    assert said.startswith("S = 4, dpmpp_2m, tuned: FID 1.00")
    assert "At 4 network calls it is better than every stock setting, p < 0.0001; the best" in said
    assert "4 calls tuned are not worse than 10 of the best stock setting" in said
    assert read_bought(STOCK, FOUND, 0.1) == []
    assert headline(STOCK, FOUND, 0.1) == ""
    assert headline([TUNED, *STOCK], FOUND, 0.1).startswith(
        "The tuned setting is proven better than every stock one of as many network calls; its FID "
    )
    assert short(STOCK[0], FOUND) == "S = 4, dpmpp_2m"


def test_what_is_worse_or_stands_alone_is_said_so() -> None:
    (said,) = read_bought([TUNED, cell("n", 0.5, "unipc", 4)], FOUND, 0.1)
    assert "At 4 network calls it is worse than the best stock setting" in said
    assert "not worse than" not in said
    rival = [cell("n", 0.5, "unipc", 4), cell("n2", 9.0, "unipc", 5)]
    other = "dpmpp_2m?timesteps=[900,400,200,9,1]"
    both = FOUND | {(other, 1.0, None)}
    told = (
        headline([TUNED, *rival], FOUND, 0.1),
        headline([TUNED, cell("t", 2.0, other, 5), *rival], both, 0.1),
    )
    assert [said.partition(" better")[0] for said in told] == [
        "The tuned setting is not proven", "1 of 2 tuned settings is proven",
    ]  # fmt: skip
    (said,) = read_bought([TUNED, STOCK[5]], FOUND, 0.1)
    assert "No stock setting of 4 network calls stands beside it." in said


def test_a_list_of_somebody_elses_is_stock_and_one_of_another_guidance_neither() -> None:
    ays = cell("o", 0.5, "dpmpp_2m?timesteps=[900,500,100,9]", 4)
    (said,) = read_bought([TUNED, ays], FOUND, 0.1)
    assert "worse than the best stock setting" in said
    elsewhere = cell("p", 9.0, LISTED, 4)
    object.__setattr__(elsewhere, "guidance_scale", 4.0)
    assert len(read_bought([TUNED, elsewhere, *STOCK], FOUND, 0.1)) == 1
    assert "tuned at another guidance" in short(elsewhere, FOUND)


def test_a_setting_guided_between_levels_stands_beside_stock_ones_guided_at_all() -> None:
    def at(name: str, fid: float, sampler: str, nfe: int, levels: str | None = None) -> CellRow:
        made = cell(name, fid, sampler, nfe, guidance_interval=levels)
        object.__setattr__(made, "guidance_scale", 4.0)
        return made

    narrow, found = at("a", 1.0, LISTED, 6, "0.2,3"), {(LISTED, 4.0, "0.2,3")}
    at_all, stock = at("b", 1.5, LISTED, 8), [at("c", 3.0, "unipc", 8), at("d", 2.0, "unipc", 12)]
    guided_so = at("e", 0.5, "unipc", 6, "0.2,3")  # the levels were found: it is no stock setting
    (said,) = read_bought([narrow, at_all, guided_so, *stock], found, 0.1)
    assert "tuned (guidance 4 in [0.2,3]): FID 1.00" in said
    assert "At 6 network calls it is better than every stock setting of 8, p < 0.0001" in said
    assert "not worse than 12 of the best stock setting" in said
    assert "of as many network calls or the next more; its FID" in headline(
        [narrow, *stock], found, 0.1
    )
    assert not is_tuned(at_all, found)
    both = {*found, (LISTED, 4.0, "")}  # the same list, for guidance at all levels
    names = [said.partition(":")[0] for said in read_bought([narrow, at_all, *stock], both, 0.1)]
    assert names == [
        "S = 6, dpmpp_2m, tuned (guidance 4 in [0.2,3])",
        "S = 8, dpmpp_2m, tuned (guidance 4)",
    ]
    assert is_tuned(at_all, {(LISTED, 4.0, "")})
    assert "0.2 to 3 alone it has FID 1 on fresh images, 0.5 less than" in read_narrowed(
        "dpmpp_2m", (0.2, 3.0), 1.0, (0.5, 0.4, 0.6)
    )
    assert "none are better than all" in read_narrowed("dpmpp_2m", None, 1.0, (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("share", "told"),
    [
        ((0.02, -0.01, 0.05), "still serves: +2 %"),
        ((0.5, 0.3, 0.7), "serves no longer: +50 %"),
        ((0.1, 0.0, 0.2), "is open: +10 %"),
    ],
)
def test_a_list_found_elsewhere_serves_or_does_not(
    share: tuple[float, float, float], told: str
) -> None:
    assert told in read_known(LISTED, *share, "farther from the long run")


@pytest.mark.parametrize("top", [999.0, 99.0])
def test_other_schedules_go_from_the_noisiest_timestep_of_whatever_network(top: float) -> None:
    uniform, karras, *ays = usual_courses(False, top, lambda t: 0.01 + t / top).values()
    assert uniform[20] == (0.5, pytest.approx(0.51))
    assert [at[0][1] for at in (uniform, karras, *ays)] == pytest.approx([1.01] * 4)
    assert karras[-1][1] == pytest.approx(0.01)
    assert karras[20][1] == pytest.approx(((1.01 ** (1 / 7) + 0.01 ** (1 / 7)) / 2) ** 7)
    assert [at[5][1] for at in ays] == pytest.approx([0.01 + t / 999 for t in (455, 310)])
    _, shifted = usual_courses(True, top, lambda t: t / top).values()
    assert shifted[20] == (0.5, pytest.approx(0.75))  # 3 x / (1 + 2 x) at a half


def test_whether_images_show_what_was_asked_for_is_told_beside_the_dearest_stock_setting() -> None:
    def judged(made: CellRow, share: float, score: float, noise: float = 0.0) -> CellRow:
        left_out = [score + 0.001 * i + noise * (-1) ** i for i in range(len(made.group_sizes))]
        return replace(
            made, class_accuracy=share, class_accuracy_low=share - 0.005,
            class_accuracy_high=min(1.0, share + 0.005), clip_score=score, clip_score_low=score,
            clip_score_high=score, clip_score_leave_one_out=left_out,
        )  # fmt: skip

    stock = [judged(STOCK[1], 0.5, 9.0), judged(STOCK[5], 0.999, 0.32)]  # of 4 calls, and of 20
    less, same = judged(TUNED, 0.98, 0.3), judged(TUNED, 0.997, 0.3201, noise=0.01)
    by_class, by_prompt = read_heed([less, *stock], FOUND)
    assert by_class == (
        "S = 4, dpmpp_2m, tuned shows the class asked for in 98.0 % [97.5, 98.5] of its images, "
        "S = 20, unipc in 99.9 % [99.4, 100.0]: fewer, beyond both intervals."
    )
    assert "tuned heeds the prompts less by CLIPScore: 0.300" in by_prompt
    assert by_prompt.endswith("a difference of -0.020 [-0.020, -0.020].")
    told = read_heed([same, *stock], FOUND)
    assert [said.partition(" cannot be told from ")[0] for said in told] == [
        "Of the tuned setting the share of images that show the class asked for",
        "Of the tuned setting CLIPScore",
    ]
    more = judged(TUNED, 0.997, 0.42, noise=0.01)  # p = 0.033, and 0.067 beside another test
    assert "heeds the prompts more by CLIPScore" in read_heed([more, *stock], FOUND)[1]
    together = read_heed([more, replace(same, cell_digest="b2"), *stock], FOUND)
    assert together[1].startswith("Of 2 tuned settings CLIPScore cannot be told from")
    other = replace(less, image_scores='{"clip_score": "other weights"}')
    assert len(read_heed([other, *stock], FOUND)) == 1  # by class alone
    assert read_heed([TUNED, *STOCK], FOUND) == []
