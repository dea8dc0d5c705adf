"""Folders of tiny networks, as each score takes them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.core.image_scores import tiny


def clip_folder(folder: Path, quick_gelu: bool = True) -> Path:
    """A CLIP in open_clip's layout, with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {"quick_gelu": quick_gelu, "vision_cfg": {"head_width": 64}, "text_cfg": {"heads": 1}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    save_file(tiny.open_clip_state(), folder / "open_clip_model.safetensors")
    tiny.write_clip_tokenizer(folder)
    return folder


def hps_folder(folder: Path) -> Path:
    """HPS v2.1 as it is published."""
    folder.mkdir()
    torch.save({"state_dict": tiny.open_clip_state()}, folder / "HPS_v2.1_compressed.pt")
    tiny.write_clip_tokenizer(folder)
    return folder


def reward_folder(folder: Path) -> Path:
    """ImageReward as it is published."""
    folder.mkdir()
    torch.save(tiny.reward_state(), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(tiny.MED_CONFIG))
    tiny.write_bert_tokenizer(folder)
    return folder


def aesthetic_folder(folder: Path) -> Path:
    """A CLIP, and the layers as they are published."""
    clip_folder(folder)
    torch.save(tiny.head_state(), folder / "linear.pth")
    return folder
