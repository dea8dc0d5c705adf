"""A trained LoRA out to files that other programs read, each read back before it is handed over."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor

from ddim_core.lora.export import has_kohya, save_diffusers, save_kohya
from ddim_core.lora.pipeline import PICTURE, pipeline_with, portrait
from ddim_core.lora.reload import reload_apart
from ddim_core.lora.specs import LoraExecution, LoraSpec, PictureSpec
from ddim_core.text2image.families import clip_of, network_of
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class Gate:
    """How far a layout, loaded in a fresh process, is from what was trained: the largest
    difference of a weight, and of a pixel of one picture (0..255)."""

    largest_weight_difference: float
    largest_pixel_difference: float


@dataclass(frozen=True)
class Exported:
    """Folders of both layouts, and how each came through the gate; None is not written: kohya's
    names are those of U-Nets."""

    lora: ArtifactRef
    kohya: ArtifactRef | None
    gate: dict[str, Gate]


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
) -> Exported:
    """Writes each layout that there is, and passes it through the gate: a fresh process loads it,
    and its weights and a picture of the prompt are compared with those that were trained.

    Raises:
        RuntimeError: If a layout does not give back the weights exactly.
    """
    torch.set_num_threads(execution.threads)
    place = Path(location)
    pipeline = pipeline_with(place, spec, load(store.get(adapter)))
    trained = portrait(pipeline, prompt, pictures)
    network, encoders = network_of(pipeline), clip_of(pipeline)
    with tempfile.TemporaryDirectory() as temporary:
        files = {"diffusers": save_diffusers(Path(temporary, "diffusers"), network, encoders)}
        if has_kohya(network, encoders):
            files["kohya"] = Path(temporary, "kohya", f"{title}.safetensors")
            save_kohya(files["kohya"], network, encoders, spec, title)
        del pipeline, network, encoders  # a large base does not fit into memory twice
        reloaded = reload_apart(place, list(files.values()), prompt, pictures)
        gate = {
            layout: _compared(layout, trained, weights)
            for layout, weights in zip(files, reloaded, strict=True)
        }
        folders = {layout: store.put_folder(file.parent) for layout, file in files.items()}
    return Exported(folders["diffusers"], folders.get("kohya"), gate)


def _compared(layout: str, trained: dict[str, Tensor], reloaded: dict[str, Tensor]) -> Gate:
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
    return Gate(weights[worst], float(pixels))
