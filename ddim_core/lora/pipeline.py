"""A base with a LoRA on it, as a pipeline that draws; and what is compared between two copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.lora.adapters import attach, set_weights, trainable
from ddim_core.lora.export import adapter_weights
from ddim_core.lora.specs import LoraSpec, PictureSpec
from ddim_core.text2image.base_folder import load_pipeline
from ddim_core.text2image.families import clip_of, network_of
from ddim_core.text2image.pictures import pictures

PICTURE = "picture"
BATCH = 8  # pictures at once


def pipeline_with(
    base: Path, spec: LoraSpec, weights: dict[str, Tensor], device: str = "cpu"
) -> Any:
    """Returns the base's pipeline with trained weights laid over it.

    Without the training's dropout: peft's would be active in every picture drawn, and, by the
    metadata of an exported file, in those of whoever loads it with diffusers.

    Raises:
        ValueError: If the weights are those of another LoRA.
    """
    pipeline = load_pipeline(base)
    network, encoders = network_of(pipeline), clip_of(pipeline)
    attach(network, encoders, replace(spec, dropout=0.0))
    set_weights(trainable(network, encoders), weights)
    return pipeline.to(device)


def draw(
    pipeline: Any, prompts: list[str], seeds: list[int], spec: PictureSpec
) -> NDArray[np.uint8]:
    """Returns one picture a prompt, uint8 [n, height, width, 3], each from its own seed."""
    size = min(len(prompts), BATCH)
    return pictures(
        pipeline, prompts, seeds, spec.steps, spec.guidance, size, resolution=spec.resolution
    )


def portrait(pipeline: Any, prompt: str, spec: PictureSpec) -> dict[str, Tensor]:
    """Returns the LoRA that a pipeline carries, and under `picture` one picture that it draws."""
    found = adapter_weights(network_of(pipeline), clip_of(pipeline))
    picture = draw(pipeline, [prompt], [spec.seed], spec)[0]
    return found | {PICTURE: torch.from_numpy(picture)}
