"""A cell that fails fails alone, is named with its reason, and is made good by the next run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

import tasks.sampling.native
from flows.cli.app import app
from tasks.storage.cell_rows import read_rows
from tests.flows.grids import GridRun

pytestmark = pytest.mark.timeout(180)
ASKED: dict[str, Any] = {"seed": 301, "etas": [0.0, 0.5, 1.0]}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling that fails at eta = 0.5."""
    whole = tasks.sampling.native.sample

    def fails(model: Any, schedule: Any, spec: Any, *noise: Any) -> Any:
        if spec.eta == 0.5:
            raise ValueError("the network burst")
        return whole(model, schedule, spec, *noise)

    monkeypatch.setattr(tasks.sampling.native, "sample", fails)


def test_failed_cell_fails_alone_and_is_named(
    run_grid: Callable[..., GridRun], broken: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = run_grid(**ASKED)
    assert failed.state == "Failed"
    assert "1 of 3 cells failed" in failed.message
    assert "S=2 eta=0.5" in failed.message
    assert "the network burst" in failed.message
    frame = read_rows().whole().frame
    assert sorted(frame[frame["seed"] == ASKED["seed"]]["eta"]) == [0.0, 1.0]
    assert failed.tasks["sample-shard", "Failed"] == 3
    assert failed.tasks["render-report", "Completed"] == 1
    shards = [f"S=2 eta={eta} shard {k}" for eta in ("0", "0.5", "1") for k in range(3)]
    assert failed.names >= {*shards, "score S=2 eta=0", "features S=2 eta=1 shard 2"}
    assert any(name.startswith("features S=2 eta=0.5 shard 2-") for name in failed.names)

    monkeypatch.undo()
    healed = run_grid(**ASKED)
    assert healed.state == "Completed"
    assert healed.result.images_drawn == 25
    assert [row["eta"] for row in sorted(healed.rows, key=lambda r: r["eta"])] == [0.0, 0.5, 1.0]


def test_command_ends_with_1_and_names_the_cell(server: str, toy: str, broken: None) -> None:
    words = f"grid --checkpoint {toy} --steps 2 --etas 0,0.5 --no-sigma-hat --n-images 10"
    ended = CliRunner().invoke(app, [*words.split(), "--features", "pixels", "--seed", "302"])
    assert ended.exit_code == 1
    assert "S=2 eta=0.5" in ended.stderr
    assert "the network burst" in ended.stderr
    assert "Traceback" not in ended.output
