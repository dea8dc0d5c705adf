"""`ddim table --compare`: what a cell costs, how much worse it may be, and which one to take."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ddim_core.decisions.measure import MEASURES
from flows.cli.text.compare import show_comparisons
from tests.core.decisions.test_compare import row

KNOWN: dict[str, Any] = {
    "steps": 5, "eta": 0.0, "variance": "eta", "n_reference": 500, "extractor": "pixels",
    "dataset": "emoji", "split": "all", "checkpoint": "faces", "checkpoint_digest": "c" * 64,
    "clip": False,
}  # fmt: skip
OURS = row("a", 3.0, **KNOWN, nfe=5, sampler="ddim", scheduler_config="")
HEUN = row("b", 3.2, **KNOWN, nfe=9, sampler="heun", scheduler_config="{}")


def test_cells_of_samplers_are_shown_with_their_network_calls(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_comparisons([OURS, HEUN], one_set=True, as_json=False)
    head, ours, heun = capsys.readouterr().out.splitlines()[2:5]
    assert head.split()[2:4] == ["S", "calls"]
    assert ours.split("eta = 0")[1].split()[:3] == ["5", "5", "3.00"]
    assert heun.split("heun")[1].split()[:3] == ["5", "9", "3.20"]
    show_comparisons([OURS], one_set=True, as_json=False)
    assert "calls" not in capsys.readouterr().out
    show_comparisons([OURS, HEUN], one_set=True, as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["nfe"] == {"a" * 8: 5, "b" * 8: 9}


def test_what_is_best_tied_and_recommended_is_told_alike_in_text_and_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dear = replace(OURS, cell_digest="d" * 8, nfe=40, fid=2.99, steps=40)
    show_comparisons([OURS, HEUN, dear], one_set=True, as_json=False, margin=0.1)
    lines = capsys.readouterr().out.splitlines()
    lowest, ours, heun = lines[3:6]
    assert lowest.endswith("lowest")
    assert ours.endswith("recommended")
    assert "tied" not in heun
    assert "2 cells are shown to be within 0.10 of the best (as asked): the cheapest" in lines[7]
    assert lines[8].startswith("What pairing buys: ")
    show_comparisons([OURS, HEUN, dear], one_set=True, as_json=True, margin=0.1)
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["best"], told["recommended"]) == ("d" * 8, "a" * 8)
    assert told["margin"] == {"value": 0.1, "source": "as asked"}
    for one in told["comparisons"]:
        assert (
            one["tied"]
            == (one["low"] <= 0.0 <= one["high"])
            == (one["a"] in told["tied_with_best"])
        )
    with pytest.raises(ValueError, match="margin is -1"):
        show_comparisons([OURS], one_set=True, as_json=True, margin=-1.0)


def test_rows_without_what_decides_are_left_out_and_named_or_refused_if_they_were_chosen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    liked = [
        replace(r, aesthetic=value, aesthetic_leave_one_out=[x - r.fid + value
                for x in r.fid_leave_one_out])
        for r, value in ((OURS, 5.0), (HEUN, 5.5))
    ]  # fmt: skip
    third = replace(OURS, cell_digest="e" * 8)
    by = MEASURES["aesthetic"]
    show_comparisons([*liked, third], one_set=False, as_json=False, measure=by)
    out = capsys.readouterr().out
    assert "The highest aesthetic score is 5.500" in out
    assert "Not compared, since they have no aesthetic (score the grid again with" in out
    assert out.splitlines()[-1].endswith(": eeeeeeee")
    show_comparisons([*liked, third], one_set=False, as_json=True, measure=by)
    shown = capsys.readouterr()
    assert len(json.loads(shown.out)[0]["nfe"]) == 2
    assert "Not compared" in shown.err
    for rows, one_set in (([*liked, third], True), ([third], False)):
        with pytest.raises(ValueError, match=r"aesthetic decides, and S = 5, eta = 0 of faces"):
            show_comparisons(rows, one_set=one_set, as_json=False, measure=by)
    other = [replace(liked[0], image_scores='{"aesthetic": "v1"}'),
             replace(liked[1], image_scores='{"aesthetic": "v2", "clip_score": "c"}')]  # fmt: skip
    show_comparisons(other, one_set=False, as_json=False, measure=by)
    assert "which differ in image_scores" in capsys.readouterr().out
