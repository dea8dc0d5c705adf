"""What counts as an unchanged grid: every byte that decides it, and every byte that came of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddim_core.decisions.row import CellRow
from flows.grid import unchanged
from flows.grid.outcome import GridOutcome
from flows.requests.flat import build
from flows.requests.grid import GridRequest
from flows.requests.samplers import cells
from tasks.storage import places, store
from tasks.storage.cell_rows import CELLS
from tests.core.image_scores.folders import aesthetic_folder
from tests.faults.flips import full_row


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(unchanged, "_comparable", lambda cells: "as it was")
    return tmp_path / "data"


def state(**asked: Any) -> str | None:
    return unchanged.state_of(build(GridRequest, asked))


def test_whatever_decides_a_grid_changes_its_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = tmp_path / "models" / "model", tmp_path / "elsewhere"
    other.mkdir()
    model.mkdir(parents=True)
    (other / "weights.bin").write_bytes(b"a")
    (model / "unet").symlink_to(other)  # what a link leads to counts
    names = [state(), state(seed=1), state(steps=[5]), state(checkpoint=str(model))]
    (other / "weights.bin").write_bytes(b"b")
    names.append(state(checkpoint=str(model)))
    (model.parent / "scheduler").mkdir()
    (model.parent / "scheduler" / "scheduler_config.json").write_text("{}")
    names.append(state(checkpoint=str(model)))
    (decoder := tmp_path / "run" / "vae").mkdir(parents=True)
    (file := tmp_path / "run" / "0400000.pt").write_bytes(b"a network of latents")
    for weights in (b"a", b"b"):
        (decoder / "weights.bin").write_bytes(weights * unchanged.LARGE)
        names.append(state(checkpoint=str(file)))
    judge = aesthetic_folder(tmp_path / "judge")
    names.append(state(image_scores=[f"aesthetic={judge}"]))
    (judge / "open_clip_config.json").write_text("{}")
    names.append(state(image_scores=[f"aesthetic={judge}"]))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:8")
    names.append(state())
    monkeypatch.setattr(unchanged, "_code", lambda: "edited")
    names.append(state())
    monkeypatch.setattr(cells, "version", lambda name: "9.9")  # of diffusers, for one
    names.append(state())
    assert None not in names
    assert len(set(names)) == len(names)
    assert state() == names[-1]


def test_what_needs_another_place_is_never_taken_for_unchanged(data: Path) -> None:
    assert state(gate=True) is None
    assert state(promote="model") is None
    assert state(checkpoint="google/ddpm-cifar10-32") is None
    assert state(checkpoint="models:/digits@champion") is None
    assert state(image_scores=["aesthetic"]) is None  # of a hub


@pytest.mark.parametrize("damage", ["row", "page", "picture"])
def test_a_result_counts_only_while_rows_and_report_have_their_bytes(
    data: Path, damage: str
) -> None:
    files = {
        "row": "results/cells/abc.parquet",
        "page": "reports/abc/index.html",
        "picture": "reports/abc/curves.png",
    }
    for name in files.values():
        store.write_whole(places.data_url(name), b"content of " + name.encode())
    result = GridOutcome(report=places.data_url(files["page"]), cells=["abc"], images_drawn=7)
    before = state()
    unchanged.keep_result(before, "changed meanwhile", result)
    assert unchanged.kept_result(before) is None
    unchanged.keep_result(before, before, result)
    assert unchanged.kept_result(before) == replace(result, images_drawn=0)
    place = Path(places.data_url(files[damage]))
    content = bytearray(place.read_bytes())
    content[3] ^= 1
    place.write_bytes(content)
    assert unchanged.kept_result(before) is None
    place.unlink()
    assert unchanged.kept_result(before) is None


def test_another_checkpoints_row_counts_with_every_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    own = CellRow(**full_row(CELLS.schema, "cell_digest", 0))
    other = replace(own, cell_digest="f" * 64, weights_digest="e" * 64, checkpoint="before")
    CELLS.write(own)
    CELLS.write(other)
    before = unchanged._comparable([own.cell_digest])
    assert unchanged._comparable([own.cell_digest]) == before
    CELLS.write(replace(other, fid_low=(other.fid_low or 0.0) / 2))
    assert unchanged._comparable([own.cell_digest]) != before
