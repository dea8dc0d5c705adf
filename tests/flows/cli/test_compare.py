"""`ddim table --compare` shows what a cell of a sampler costs beside S."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
