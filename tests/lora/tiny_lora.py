"""A LoRA of random weights on a base, in both layouts: quick, and it moves every picture."""

from __future__ import annotations

from pathlib import Path

import torch

from ddim_core.lora.adapters import attach
from ddim_core.lora.export import save_diffusers, save_kohya
from ddim_core.lora.specs import LoraSpec
from ddim_core.text2image.base_folder import load_network, load_text_encoders


def write_lora(base: Path, folder: Path) -> tuple[str, str]:
    """Returns the files of diffusers' and of kohya's layout; alpha is not the rank."""
    spec = LoraSpec(rank=2, alpha=6.0)
    unet, encoders = load_network(base), load_text_encoders(base)
    attach(unet, encoders, spec)
    stream = torch.Generator().manual_seed(0)
    for name, weight in unet.named_parameters():
        if "lora_B" in name:
            weight.data = 0.1 * torch.randn(weight.shape, generator=stream)
    ours = save_diffusers(folder, unet, encoders)
    kohya = folder / "kohya.safetensors"
    save_kohya(kohya, unet, encoders, spec, "a LoRA")
    return str(ours), str(kohya)
