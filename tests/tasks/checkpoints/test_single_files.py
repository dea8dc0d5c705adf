"""A single file of Stable Diffusion in the store: which of its two U-Nets is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddim_core.pipelines.single_file import UNET
from tasks.checkpoints.convert import SingleFile, single_file_digest, unpack_single_file
from tasks.storage import places, store
from tests.core.pipelines.original import original
from tests.core.pipelines.tiny import sdxl_with_texts

NETWORK = "unet/diffusion_pytorch_model.safetensors"


def test_the_average_in_a_single_file_is_taken_unless_the_raw_weights_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    pipeline, file = sdxl_with_texts(), tmp_path / "both.safetensors"
    pipeline.save_pretrained(tmp_path / "folder")
    weights = original(pipeline)
    flat = {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": 2.0 * weight
        for name, weight in weights.items()
        if name.startswith(UNET)
    }
    save_file(weights | flat, file)
    single = SingleFile(str(file), str(tmp_path / "folder"))
    found = single_file_digest(single)
    raw, average = (
        load_file(store.get_folder(unpack_single_file.fn(found, kind, location=single)) / NETWORK)
        for kind in ("raw", "ema")
    )
    given = load_file(tmp_path / "folder" / NETWORK)
    for name, weight in given.items():
        assert torch.equal(raw[name], weight), name
        assert torch.equal(average[name], 2.0 * weight), name
