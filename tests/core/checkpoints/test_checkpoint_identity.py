"""Checkpoints that were read before are the same checkpoints to every later version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from diffusers import UNet2DModel

from ddim_core.checkpoints.convert import adopt, source_digest, source_files
from ddim_core.checkpoints.identity import weights_digest
from tests.core.foreign_files import SETTINGS, official_like, official_names, small_unet

# Written down before any of the forms of `test_forms.py` were read: (of the files, of the content).
# A change here makes every row of the table another checkpoint's.
KNOWN = {
    "pipeline": (
        "13453cfeb1a01b129960b5116272f7b8f40926ada5bd3a3d6a01d9d836f19579",
        "5bd027d1ad1c7b164367bca4e0d25ee0b6e27a7a257aa5f651c1f5534b91ce79",
    ),
    "training folder": (
        "7822c8b1fed83fd19a052d6d4d27f5aad23083257232f8a06bcf12024ab5ada3",
        "d5f5eeb3e81c7c85aa2672b43e15d70745538cb0d405c373ca8d17392f22d62a",
    ),
    "bare": (
        "13558536df66ba66fb2ff6c59f1a694ea7ec2fa2e45a0ca6a09d9aa028a6198a",
        "f2c2764aae53636c206e58bf3751d4fa2ab3cbc50d4ab92571fdb0833e047c4b",
    ),
    "single file": (
        "68ed313c122bdc08e61cd79609994f6cfc250ea73aa8899d4e0007677adb39c4",
        "df8fa2a646a3cded960686aa705bcbb4db777bf6b3b26d2e6136920c1ac521a8",
    ),
    "official states": (
        "113457ca222702d3b64243d3e73864010531bb9a8459046edbdec7d06eb2b698",
        "a89fff3fd9a538630189b11d83c5aa47914ff0671e7a27bf3b522111e8b9aaea",
    ),
    "shards": (
        "cfd9ef4bfadc65e5bc548874310afa3393eec9e08ce64b53cac6ece71bf24a00",
        "f2c2764aae53636c206e58bf3751d4fa2ab3cbc50d4ab92571fdb0833e047c4b",
    ),
}


def fixed(unet: UNet2DModel, seed: int = 0) -> UNet2DModel:
    """Weights that are the same on every machine: exact products, no library's random numbers."""
    with torch.no_grad():
        for place, weight in enumerate(unet.parameters()):
            numbers = np.arange(weight.numel(), dtype=np.int64) * (seed + place + 7) % 251
            weight.copy_(
                torch.from_numpy((numbers - 125).astype(np.float32) / 1024).view_as(weight)
            )
    return unet


def small(seed: int = 0) -> UNet2DModel:
    return fixed(small_unet(), seed)


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, sort_keys=True) + "\n")


def config_of(unet: UNet2DModel) -> dict[str, Any]:
    told = {k: v for k, v in unet.config.items() if k not in ("_use_default_values",)}
    return told | {"_class_name": "UNet2DModel", "_diffusers_version": "0.1"}


def write_network(folder: Path, unet: UNet2DModel) -> None:
    write_json(folder / "config.json", config_of(unet))
    save(unet.state_dict(), folder / "diffusion_pytorch_model.safetensors")


def save(state: dict[str, torch.Tensor], path: Path) -> None:
    safetensors.torch.save_file(state, path, metadata={"format": "pt"})


def pipeline(folder: Path) -> Path:
    write_network(folder / "unet", small())
    scheduler = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"}
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    index = {"_class_name": "DDIMPipeline", "scheduler": ["diffusers", "DDIMScheduler"]}
    write_json(folder / "model_index.json", index | {"unet": ["diffusers", "UNet2DModel"]})
    return folder


def training_folder(folder: Path) -> Path:
    write_network(folder / "checkpoint-700" / "unet", small(1))
    write_network(folder / "checkpoint-700" / "unet_ema", small(2))
    return folder / "checkpoint-700"


def bare(folder: Path) -> Path:
    write_network(folder, small())
    return folder


def single_file(folder: Path) -> Path:
    folder.mkdir()
    save(small().state_dict(), folder / "model.safetensors")
    write_json(folder / "model.json", config_of(small()))
    return folder / "model.safetensors"


def official_states(folder: Path) -> Path:
    folder.mkdir()
    raw, ema = (official_names(fixed(official_like(), seed)) for seed in (1, 2))
    states = [{f"module.{name}": weight for name, weight in raw.items()}, {}, 3, 5000, ema]
    torch.save(states, folder / "ckpt.pth")
    (folder / "config.yml").write_text(yaml.safe_dump(SETTINGS))
    return folder / "ckpt.pth"


def shards(folder: Path) -> Path:
    write_network(folder, small())
    whole = folder / "diffusion_pytorch_model.safetensors"
    state = safetensors.torch.load_file(whole)
    whole.unlink()
    places = {}
    for part, names in enumerate((sorted(state)[:20], sorted(state)[20:])):
        name = f"diffusion_pytorch_model-{part + 1:05d}-of-00002.safetensors"
        save({key: state[key] for key in names}, folder / name)
        places |= dict.fromkeys(names, name)
    write_json(
        folder / "diffusion_pytorch_model.safetensors.index.json",
        {"metadata": {}, "weight_map": places},
    )
    return folder


FORMS = {
    "pipeline": pipeline, "training folder": training_folder, "bare": bare,
    "single file": single_file, "official states": official_states, "shards": shards,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_what_was_read_before_keeps_its_identity(form: str, tmp_path: Path) -> None:
    files = source_files(FORMS[form](tmp_path / "given"))
    (tmp_path / "out").mkdir()
    adopt(files, tmp_path / "out")
    assert (source_digest(files), weights_digest(tmp_path / "out")) == KNOWN[form]
