"""The measurement of a card, tiny and on a CPU: the same code, all of whose figures come out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import lora, native, pipelines, scores, training
from benchmarks.gpu.record import Figure, Record


def test_a_tiny_run_writes_its_figures_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.lora.N_IMAGES", 2)
    monkeypatch.setattr(torch, "compile", lambda function, **how: function)
    record = Record(tmp_path / "out", "cpu", 2000.0)
    ref = native.stored(True, tmp_path)
    record.work("bits", 0, lambda: native.bits(record, True, "cpu", ref))
    record.work("scores", 0, lambda: scores.measure(record, True, "cpu"))
    record.work("sd15", 0, lambda: pipelines.measure(record, "sd15", True, "cpu"))
    record.work("native", 0, lambda: native.measure(record, True, "cpu", ref))
    record.work("tries", 0, lambda: pipelines.tries(record, "sd15", True, "cpu"))
    record.work("compiled", 0, lambda: pipelines.by_compiler(record, "sd15", True, "cpu"))
    record.work("training", 0, lambda: training.measure(record, True, "cpu", tmp_path))
    record.work("lora", 0, lambda: lora.measure(record, True, "cpu", tmp_path))
    record.work("late", 9000, lambda: record.add(Figure("never", 0.0, "ratio")))
    record.work("broken", 0, lambda: record.add(Figure("never", 1 / 0, "ratio")))
    told = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert set(told["failed"]) == {"late", "broken"}, told["failed"]
    assert "s were left, and it takes 9000" in told["failed"]["late"]
    assert "ZeroDivisionError" in told["failed"]["broken"]
    seen = {figure["name"]: figure["value"] for figure in told["figures"]}
    moved = [value for name, value in seen.items() if "moved" in name]
    assert moved == [0.0] * 3
    assert seen["largest difference between scores of the card and of a CPU"] < 1e-9
    assert seen["sampling / bare calls, sd15"] > 0
    assert seen["sampling / bare calls, CIFAR-sized, diffusers' ddpm"] > 0
    assert seen["ours / diffusers' pipeline, both compiled, images/s, sd15"] > 0
    assert sum("/ as it is, sd15" in name for name in seen) == 3
    assert seen["LoRA steps/s, ours / diffusers' script, SD 1.5-sized"] > 0
    table = (tmp_path / "out" / "gpu.md").read_text().splitlines()
    assert len(table) == 2 + len(told["figures"])
