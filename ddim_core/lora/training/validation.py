"""The loss of a LoRA on images it is not trained on, from draws that stay the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_core.lora.pipeline import pipeline_with
from ddim_core.lora.recipes import recipe_of
from ddim_core.lora.specs import LoraSpec
from ddim_core.lora.training.batches import TrainingImages, draws
from ddim_core.lora.training.engine import OneProcess
from ddim_core.lora.training.loss import Objective, Prompts
from ddim_core.lora.training.noising import noising_of
from ddim_core.text2image.base_folder import load_noise_scheduler, load_pipeline
from ddim_core.text2image.families import clip_of, network_of

PASSES = 2  # times that every image is drawn with a timestep and noise
BATCH = 16
SEED = 2**31 - 1  # not the training's, so that no noise is known to it


def validation_loss(
    base: Path,
    spec: LoraSpec,
    weights: dict[str, Tensor] | None,
    prompts: Prompts,
    images: TrainingImages,
    device: str = "cpu",
) -> float:
    """Returns the mean loss over images, each with fixed timesteps and noise.

    Without caption dropout, noise offset or weighting: of two checkpoints only the weights differ.

    Args:
        base: The base's folder.
        spec: How the LoRA was trained.
        weights: Its own; None is the base alone.
        prompts: The embedded captions.
        images: Encoded images that it was not trained on.
        device: Where the networks run.
    """
    plain = replace(
        spec, batch_size=min(BATCH, len(images)), caption_dropout=0.0, noise_offset=0.0,
        snr_gamma=None, weighting="none", precondition=False, seed=SEED,
    )  # fmt: skip
    pipeline = load_pipeline(base) if weights is None else pipeline_with(base, spec, weights)
    pipeline.to(device)
    noising = noising_of(load_noise_scheduler(base))
    encoders: list[Any] = clip_of(pipeline) if spec.text_encoder and weights else []
    objective = Objective(
        plain, recipe_of(base), noising, images, prompts, network_of(pipeline).eval(),
        [encoder.eval() for encoder in encoders], OneProcess(device, "no"),
    )  # fmt: skip
    draw = draws(plain, images, None, noising.n_train)
    total, count = 0.0, 0
    index = 0
    with torch.inference_mode():
        while count < PASSES * len(images):
            for group in draw(index):
                n = len(group.timesteps)
                total += float(objective(group)) / float(group.weights.sum()) * n
                count += n
            index += 1
    return total / count
