"""What a search costs on a pipeline of a large model's shape: seconds and network calls."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from benchmarks.gpu import grids, models
from benchmarks.gpu.record import Figure, Record

CALLS = 8
LONG = 32  # steps of the long run; random weights would have it doubled for nothing


def measure(record: Record, tiny: bool, device: str, folder: Path) -> None:
    """`ddim tune --search family` of DPM++ 2M at 8 calls on Stable Diffusion 1.5's shape, guided,
    by latents; weights are random, so that what it finds is worth nothing."""
    n = 2 if tiny else 32
    dtype = torch.float32 if tiny else torch.float16
    checkpoint, prompts = folder / "sd15-tuned", folder / "encoded.safetensors"
    models.sd15(tiny, device, dtype).save_pretrained(checkpoint)
    told = {
        name: value[:1] if name.startswith("negative_") else value
        for name, value in models.conditions("sd15", tiny, 2 * n).items()
    }
    safetensors.torch.save_file({k: v.contiguous() for k, v in told.items()}, prompts)
    tune = grids.flow("tune", folder / "data")
    asked: dict[str, Any] = {
        "checkpoint": str(checkpoint), "prompts": str(prompts), "samplers": ["dpmpp_2m"],
        "calls": [CALLS], "guidance": [7.5], "search": "family", "tuning_images": n,
        "long_steps": LONG, "n_images": 0, "device": device if device != "cpu" else "cpu:0",
        "dtype": "float32" if tiny else "float16",
    }  # fmt: skip
    began = time.perf_counter()
    (found,) = tune(**asked).settings
    seconds = time.perf_counter() - began
    judged = 3 * CALLS  # the list on fresh images, the sampler as it stands on either
    calls = 2 * n * (found.found.spent + 2.5 * LONG + judged)  # guidance asks twice
    record.add(
        Figure(f"tuning an SD 1.5-sized pipeline at {CALLS} calls", seconds, "s",
               told=f"{n} images, {found.found.n_tried} candidates of two ends and rho, "
               f"{calls:,.0f} image calls at most with the long run of {LONG} steps and its half"),
    )  # fmt: skip
