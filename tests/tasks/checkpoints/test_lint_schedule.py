"""What a grid says of its schedule, with what came with the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddim_core.checkpoints.checkpoint import save_pipeline
from ddim_core.diffusion.specs import GridCell, NoiseSpec, SamplerSpec
from ddim_core.networks.denoisers import toy_unet
from ddim_core.networks.specs import ToyModelSpec
from tasks.checkpoints.open import lint_schedule
from tasks.storage import places, store


def cells(*steps: int, clip: bool = False) -> list[GridCell]:
    return [GridCell(SamplerSpec(s, eta=eta, clip=clip)) for eta in (0.0, 1.0) for s in steps]


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    folder = tmp_path / "toy"
    save_pipeline(folder, toy_unet(ToyModelSpec(widths=(8, 8)), seed=0), NoiseSpec(), 7)
    return folder


def configure(folder: Path, **changes: bool) -> store.ArtifactRef:
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return store.put_folder(folder)


def test_a_schedule_that_ends_before_clean_data_in_diffusers_is_told_once(checkpoint: Path) -> None:
    told = lint_schedule.fn(configure(checkpoint, set_alpha_to_one=False), cells(5, 10))
    (ending,) = [line for line in told if "set_alpha_to_one" in line]
    assert ending.startswith("S = 5, 10: ")
    told = lint_schedule.fn(configure(checkpoint, set_alpha_to_one=True), cells(5, 10))
    assert not any("set_alpha_to_one" in line for line in told)


@pytest.mark.parametrize("clip", [False, True])
def test_clipping_unlike_the_checkpoints_is_told(checkpoint: Path, clip: bool) -> None:
    ref = configure(checkpoint, clip_sample=True)
    told = lint_schedule.fn(ref, cells(5, clip=clip))
    assert any("clip_sample" in line for line in told) is not clip
