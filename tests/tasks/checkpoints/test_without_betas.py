"""Bare U-Nets of flows and EDMs: opened for diffusers' schedulers, refused by what needs betas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from ddim_core.checkpoints.checkpoint import save_pipeline
from ddim_core.checkpoints.convert import adopt, source_files
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.diffusion.specs import Execution, GridCell, NoiseSpec, SamplerSpec, SchedulerSpec
from ddim_core.images.pixels import to_uint8
from ddim_core.networks.denoisers import toy_unet
from ddim_core.networks.specs import ToyModelSpec
from tasks.cells.settings import require_fit
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.checkpoints.open import lint_schedule, open_checkpoint, require_native
from tasks.sampling import beyond_sampling, native, scheduled
from tasks.storage import places, store
from tasks.storage.store import ArtifactRef
from tests.core.edm_files import dumped, recorded

NO_BETAS = "of a flow or an EDM and knows no schedule of betas"
EDM, FLOW = EDMDPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    unet = toy_unet(ToyModelSpec(widths=(8, 8)), seed=0)
    save_pipeline(tmp_path / "toy", unet, NoiseSpec(), 7, "flow")
    return tmp_path / "toy"


def stored(folder: Path, kind: type, **settings: float) -> ArtifactRef:
    """The folder with another scheduler, in the store."""
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", kind.__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({"_class_name": kind.__name__, **settings}))
    return store.put_folder(folder)


@pytest.mark.parametrize(
    ("kind", "predicts", "settings"),
    [(FLOW, "flow_prediction", {"shift": 3.0}), (EDM, "epsilon", {"sigma_max": 40.0})],
)
def test_its_images_are_those_of_its_own_scheduler(
    folder: Path, kind: type, predicts: str, settings: dict[str, float]
) -> None:
    ref = stored(folder, kind, **settings, num_train_timesteps=500)
    record = open_checkpoint.fn(ref, "toy")
    assert (record.is_native, record.pipeline, record.n_train) == (False, "", 500)
    assert record.prediction_type == predicts
    cell = GridCell(SchedulerSpec("own", 3, prediction_type=predicts), seed=4)
    require_fit([cell], record.n_train, ref)
    assert isinstance(lint_schedule.fn(ref, [cell]), list)
    drawn = scheduled._draw(cell, ref, Execution(), range(2), 2, 0)

    scheduler = kind(**settings, num_train_timesteps=500)
    scheduler.set_timesteps(3)
    x = ImageNoise(4, range(2), (1, 8, 8)).x_T() * getattr(scheduler, "init_noise_sigma", 1.0)
    model = checkpoint_in_memory(ref).model
    with torch.inference_mode():
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t) if kind is EDM else x
            x = scheduler.step(model(scaled, t.expand(2)), t, x).prev_sample
    assert drawn.nfe == 3
    assert np.abs(drawn.images.astype(int) - to_uint8(x)).max() <= 1
    other = GridCell(SchedulerSpec("heun", 3, prediction_type=predicts))
    with pytest.raises(ValueError, match="heun does not fit the checkpoint"):
        require_fit([other], record.n_train, ref)


def test_what_needs_a_schedule_of_betas_says_so(folder: Path) -> None:
    ref, ddim, execution = store.put_folder(folder), SamplerSpec(5), Execution()
    with pytest.raises(ValueError, match=NO_BETAS):
        require_native(open_checkpoint.fn(ref, "toy"))
    with pytest.raises(ValueError, match=NO_BETAS):
        lint_schedule.fn(ref, [GridCell(ddim)])
    with pytest.raises(ValueError, match=NO_BETAS):
        native._draw(GridCell(ddim), ref, execution, range(2), 2, 0)
    with pytest.raises(ValueError, match=NO_BETAS):
        beyond_sampling._opened(ref, execution)


def test_a_snapshot_of_edm_is_drawn_with_churn_whatever_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    net = recorded()["EDMPrecond ddpmpp"].net(label_dropout=0.1)
    (tmp_path / "network-snapshot-000100.pkl").write_bytes(dumped({"ema": net}))
    (out := tmp_path / "out").mkdir()
    adopt(source_files(tmp_path / "network-snapshot-000100.pkl"), out)
    ref = store.put_folder(out)
    record = open_checkpoint.fn(ref, "edm")
    assert (record.n_classes, record.null_label, record.training_step) == (3, 3, 100)
    drawn = {}
    for sampler in ("edm_heun?S_churn=8&S_min=0.01", "own"):
        cell = GridCell(SchedulerSpec(sampler, 4, guidance_scale=2.0), seed=1)
        require_fit([cell], record.n_train, ref)
        together = scheduled._draw(cell, ref, Execution(), range(3), 3, 0)
        alone = [scheduled._draw(cell, ref, Execution(), range(i, i + 1), 1, 0) for i in range(3)]
        assert together.nfe == 14  # seven calls, each with the class and without
        assert np.array_equal(together.images, np.concatenate([one.images for one in alone]))
        drawn[sampler] = together.images
    assert not np.array_equal(*drawn.values())
