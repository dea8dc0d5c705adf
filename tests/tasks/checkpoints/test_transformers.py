"""SiT and DiT in the store, with an autoencoder from elsewhere; guided cells and their calls."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_core.checkpoints.convert import source_digest
from ddim_core.diffusion.specs import Execution, GridCell, SamplerSpec, SchedulerSpec
from tasks.cells.settings import calls_of, require_fit
from tasks.checkpoints import convert
from tasks.checkpoints.arrivals import candidates
from tasks.checkpoints.convert import SingleFile, convert_checkpoint, files_of
from tasks.checkpoints.open import open_checkpoint
from tasks.sampling import native, scheduled
from tasks.sampling.guides import require_guide, require_guide_at
from tasks.storage import places
from tasks.storage.store import ArtifactRef
from tests.core.checkpoints.test_transformers import saved, tiny_decoder

FLOW = SchedulerSpec("own", 4, guidance_scale=2.0, prediction_type="flow_prediction")
VP = SamplerSpec(4, guidance_scale=2.0)


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))


def stored(name: str, folder: Path) -> ArtifactRef:
    tiny_decoder(folder / "autoencoder")
    single = SingleFile(str(saved(name, folder / "run")), str(folder / "autoencoder"))
    return convert_checkpoint.fn(source_digest(files_of(single)), "ema", location=single)


def test_a_cell_is_guided_where_it_is_said_and_its_calls_are_counted(tmp_path: Path) -> None:
    drawn = {}
    ref = stored("sit", tmp_path)
    record = open_checkpoint.fn(ref, "sit")
    assert (record.resolution, record.channels, record.n_classes) == (16, 3, 10)
    # Asked at 1, 0.667, 0.334 and 0.001.
    for interval, nfe in ((None, 8), ((0.0, 0.7), 7), ((0.9, 1.0), 5), ((2.0, 3.0), 4)):
        cell = GridCell(replace(FLOW, guidance_interval=interval))
        if nfe > 4:
            require_fit([cell], record.n_train, ref)
        assert calls_of(cell, record.n_train, ref) == nfe
        drawn[nfe] = scheduled._draw(cell, ref, Execution(), range(2), 2, 0)
        assert drawn[nfe].nfe == nfe
    plain = scheduled._draw(
        GridCell(replace(FLOW, guidance_scale=1.0)), ref, Execution(), range(2), 2, 0
    )
    assert np.array_equal(drawn[4].images, plain.images)
    assert not np.array_equal(drawn[8].images, drawn[7].images)
    none = GridCell(replace(FLOW, guidance_interval=(2.0, 3.0)))
    told = r"guidance_interval is 2,3, and holds none .* with 4 steps, from 0.001 to 1;"
    with pytest.raises(ValueError, match=told):
        require_fit([none], record.n_train, ref)
    for n_channels in (4, 9):
        with pytest.raises(ValueError, match=f"guidance_channels is {n_channels}, and the network"):
            require_fit([GridCell(replace(FLOW, guidance_channels=n_channels))], 1000, ref)


def test_a_checkpoint_is_guided_by_another_of_its_kind_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    led, dit = stored("sit", tmp_path), stored("dit", tmp_path / "dit")
    record = open_checkpoint.fn(led, "sit")
    cell = GridCell(replace(FLOW, guidance_scale=1.0))
    plain = scheduled._draw(cell, led, Execution(), range(2), 2, 0)
    by_itself = GridCell(replace(FLOW, guide=led.artifact))
    drawn = scheduled._draw(by_itself, led, Execution(), range(2), 2, 0)
    assert (drawn.nfe, calls_of(by_itself, record.n_train, led)) == (8, 8)
    # x + 2 (x - x) in float32, over four steps, as one of 256
    assert np.abs(drawn.images.astype(int) - plain.images).max() <= 1
    require_guide(record, record)
    told = "prediction_type is flow_prediction of the checkpoint and epsilon of its guide dit"
    with pytest.raises(ValueError, match=told):
        require_guide(open_checkpoint.fn(dit, "dit"), record)
    files = [str(next((tmp_path / at).glob("*.pt"))) for at in ("dit/run", "run")]
    with pytest.raises(ValueError, match=told.replace("dit", ".*")):
        require_guide_at(*files, "ema", str(tmp_path / "autoencoder"))
    with monkeypatch.context() as once:  # both have been converted in this process
        once.setattr(convert, "_converted", lambda *_: pytest.fail("it is converted again"))
        require_guide_at(files[1], files[1], "ema", str(tmp_path / "autoencoder"))
    alone = GridCell(SchedulerSpec("ddpm", 4, guidance_scale=0.0, guide=dit.artifact))
    require_fit([alone], 1000, dit)
    with pytest.raises(ValueError, match="guidance is 0, where the guide alone draws, and ddpm"):
        require_fit([replace(alone, sampler=replace(alone.sampler, guide=led.artifact))], 1000, dit)
    for changed, told in (
        ({"n_classes": 5}, "the guide knows 5 classes and the checkpoint 10"),
        ({"resolution": 32}, "resolution is 16 of the checkpoint and 32 of its guide sit"),
        ({"with_prompts": True}, "the guide sit is told of a text"),
    ):
        with pytest.raises(ValueError, match=told):
            require_guide(replace(record, **changed), record)
    shutil.rmtree(tmp_path / "autoencoder")
    tiny_decoder(tmp_path / "autoencoder", layers_per_block=2)
    other = SingleFile(str(tmp_path / "run" / "0400000.pt"), str(tmp_path / "autoencoder"))
    of_other = convert_checkpoint.fn(source_digest(files_of(other)), "ema", location=other)
    with pytest.raises(ValueError, match="latents of another autoencoder"):
        require_guide(open_checkpoint.fn(of_other, "sit"), record)


def test_our_own_ddim_is_guided_by_noise_over_signal(tmp_path: Path) -> None:
    ref = stored("dit", tmp_path)
    record = open_checkpoint.fn(ref, "dit")
    assert record.is_native
    # Asked at 750, 500, 250 and 0, where noise over signal is 17, 3.4, 0.95 and 0.01.
    for interval, nfe in ((None, 8), ((0.5, 5.0), 6), ((0.0, 0.1), 5)):
        cell = GridCell(replace(VP, guidance_interval=interval))
        require_fit([cell], record.n_train, ref)
        assert calls_of(cell, record.n_train, ref) == nfe
        assert native._draw(cell, ref, Execution(), range(2), 2, 0).nfe == nfe


def test_what_belongs_to_all_snapshots_of_a_folder_is_none_itself(tmp_path: Path) -> None:
    saved("sit", tmp_path / "run")
    tiny_decoder(tmp_path / "run" / "vae")
    torch.save({}, tmp_path / "run" / "latents_stats.pt")
    found = [Path(candidate.address).name for candidate in candidates(str(tmp_path / "run"))]
    assert found == ["0400000.pt"]
