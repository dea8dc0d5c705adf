"""A trained LoRA out to files that other programs read, each read back before it is handed over."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from ddim_core.lora.export import save_diffusers, save_kohya
from ddim_core.lora.pipeline import PICTURE, encoders_of, pipeline_with, portrait
from ddim_core.lora.reload import reload_apart
from ddim_core.lora.specs import LoraExecution, LoraSpec, PictureSpec
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def export_lora(
    adapter: ArtifactRef,
    spec: LoraSpec,
    title: str,
    prompt: str,
    pictures: PictureSpec,
    base: dict[str, str],
    location: str,
    execution: LoraExecution,
) -> dict[str, Any]:
    """Writes both layouts, and passes each through the gate: a fresh process loads it, and its
    weights and a picture of the prompt are compared with those that were trained.

    Returns:
        References to a folder of each layout; under `gate`, for each, the largest differences of a
        weight and of a pixel (0..255).

    Raises:
        RuntimeError: If a layout does not give back the weights exactly.
    """
    torch.set_num_threads(execution.threads)
    place = Path(location)
    pipeline = pipeline_with(place, spec, load(store.get(adapter)))
    trained = portrait(pipeline, prompt, pictures)
    unet, encoders = pipeline.unet, encoders_of(pipeline)
    with tempfile.TemporaryDirectory() as temporary:
        files = {
            "diffusers": save_diffusers(Path(temporary, "diffusers"), unet, encoders),
            "kohya": Path(temporary, "kohya", f"{title}.safetensors"),
        }
        save_kohya(files["kohya"], unet, encoders, spec, title)
        del pipeline, unet, encoders  # a large base does not fit into memory twice
        gate = {
            layout: _compared(layout, trained, reload_apart(place, file, prompt, pictures))
            for layout, file in files.items()
        }
        folders = {layout: store.put_folder(file.parent) for layout, file in files.items()}
    return {"lora": folders["diffusers"], "kohya": folders["kohya"], "gate": gate}


def _compared(
    layout: str, trained: dict[str, Tensor], reloaded: dict[str, Tensor]
) -> dict[str, float]:
    odd = sorted(set(trained) ^ set(reloaded))
    if odd:
        raise RuntimeError(f"the {layout} file does not give back the LoRA: {odd[0]} is missing")
    weights = {
        name: float((trained[name].double() - reloaded[name].double()).abs().max())
        for name in trained
        if name != PICTURE
    }
    worst = max(weights, key=lambda name: weights[name])
    if weights[worst] != 0.0:
        raise RuntimeError(
            f"the {layout} file does not give back the LoRA: {worst} differs by {weights[worst]:g}"
        )
    pixels = (trained[PICTURE].int() - reloaded[PICTURE].int()).abs().max()
    return {"largest_weight_difference": weights[worst], "largest_pixel_difference": float(pixels)}
