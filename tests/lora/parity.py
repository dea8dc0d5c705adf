"""The runs in which our loop is held against diffusers' own scripts; see record_scripts.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddim_core.lora.specs import LoraSpec
from tests.lora.tiny_base import (
    write_tiny_base,
    write_tiny_flux_base,
    write_tiny_sd3_base,
    write_tiny_xl_base,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "lora_scripts.npz"
RESOLUTION, STEPS, RATE = 16, 20, 1e-3
INSTANCE_PROMPT, CLASS_PROMPT = "a photo of sks cat", "a photo of a cat"
CAPTIONS = ("a drawing of a cat", "a painting of a dog", "a red cat", "a blue dog")
N_IMAGES, N_INSTANCE, N_CLASS = 8, 4, 6


@dataclass(frozen=True)
class Case:
    """One run: the script with its options, and the same options in our words.

    Attributes:
        data: The folders that it trains on: captioned images, those of a subject, and its class's.
        n_tokens: What it pads prompts to for T5; 0 without.
    """

    script: str
    options: tuple[str, ...]
    spec: LoraSpec
    base: Callable[[Path], Path] = write_tiny_base
    data: tuple[str, ...] = ("captioned",)
    flip: bool = False
    n_tokens: int = 0


CASES = {
    "text-to-image": Case(
        "train_text_to_image_lora.py",
        ("--lr_scheduler", "constant"),
        # Its clipping does nothing: it is handed an iterator that the optimiser has used up.
        LoraSpec(steps=STEPS, batch_size=2, learning_rate=RATE, gradient_clip=0.0),
    ),
    "text-to-image-options": Case(
        "train_text_to_image_lora.py",
        (
            "--lr_scheduler", "cosine", "--lr_warmup_steps", "5", "--snr_gamma", "5",
            "--noise_offset", "0.1", "--gradient_accumulation_steps", "2", "--random_flip",
        ),
        LoraSpec(
            steps=STEPS, batch_size=2, learning_rate=RATE, gradient_clip=0.0, accumulation=2,
            schedule="cosine", warmup_steps=5, snr_gamma=5.0, noise_offset=0.1,
        ),
        base=lambda folder: write_tiny_base(folder, "v_prediction"),
        flip=True,
    ),
    "dreambooth": Case(
        "train_dreambooth_lora.py",
        (
            "--with_prior_preservation", "--prior_loss_weight", "0.7", "--train_text_encoder",
            "--max_grad_norm", "0.5", "--lr_scheduler", "constant",
        ),
        LoraSpec(
            steps=STEPS, batch_size=2, learning_rate=RATE, gradient_clip=0.5, prior_weight=0.7,
            text_encoder=True,
        ),
        data=("instance", "class"),
    ),
    "sdxl-text-to-image": Case(
        "train_text_to_image_lora_sdxl.py",
        (
            "--train_text_encoder", "--max_grad_norm", "0.5", "--snr_gamma", "5",
            "--noise_offset", "0.1",
        ),
        LoraSpec(
            steps=STEPS, batch_size=2, learning_rate=RATE, gradient_clip=0.5, snr_gamma=5.0,
            noise_offset=0.1, text_encoder=True,
        ),
        base=write_tiny_xl_base,
    ),
    # One image a batch: of several, the script gives the class's prompt to images of the subject.
    "sdxl-dreambooth": Case(
        "train_dreambooth_lora_sdxl.py",
        (
            "--with_prior_preservation", "--prior_loss_weight", "0.7", "--max_grad_norm", "0.5",
            "--lr_scheduler", "cosine", "--lr_warmup_steps", "5", "--adam_weight_decay", "0.01",
            "--train_batch_size", "1",
        ),
        LoraSpec(
            steps=STEPS, batch_size=1, learning_rate=RATE, gradient_clip=0.5, prior_weight=0.7,
            schedule="cosine", warmup_steps=5,
        ),
        base=write_tiny_xl_base,
        data=("instance", "class"),
    ),
    # One image a batch: for a prompt of the command line the script embeds no more prompts.
    "sd3-dreambooth": Case(
        "train_dreambooth_lora_sd3.py",
        (
            "--with_prior_preservation", "--prior_loss_weight", "0.7", "--train_batch_size", "1",
            "--adam_weight_decay", "0.01",
        ),
        LoraSpec(
            steps=STEPS, batch_size=1, learning_rate=RATE, prior_weight=0.7,
            weighting="logit_normal", precondition=True,
        ),
        base=write_tiny_sd3_base,
        data=("instance", "class"),
        n_tokens=77,
    ),
    "sd3-captions": Case(
        "train_dreambooth_lora_sd3.py",
        (
            "--train_text_encoder", "--text_encoder_lr", "2e-3", "--weighting_scheme", "mode",
            "--precondition_outputs", "0", "--adam_weight_decay", "0.01",
            "--adam_weight_decay_text_encoder", "0.01",
        ),
        LoraSpec(
            steps=STEPS, batch_size=2, learning_rate=RATE, text_learning_rate=2e-3,
            text_encoder=True, weighting="mode",
        ),
        base=write_tiny_sd3_base,
        n_tokens=77,
    ),
    "flux-dreambooth": Case(
        "train_dreambooth_lora_flux.py",
        (
            "--with_prior_preservation", "--prior_loss_weight", "0.7", "--max_grad_norm", "0.5",
            "--adam_weight_decay", "0.01",
        ),
        LoraSpec(
            steps=STEPS, batch_size=2, learning_rate=RATE, gradient_clip=0.5, prior_weight=0.7,
            targets=("attention", "feed-forward"),
        ),
        base=write_tiny_flux_base,
        data=("instance", "class"),
        n_tokens=77,
    ),
    # Without a limit of the gradient's norm, in which the script counts what never moves: the
    # gradients of token embeddings, added up over all steps.
    "flux-captions": Case(
        "train_dreambooth_lora_flux.py",
        (
            "--train_text_encoder", "--text_encoder_lr", "2e-3", "--weighting_scheme", "cosmap",
            "--guidance_scale", "1", "--max_grad_norm", "1e9", "--adam_weight_decay", "0.01",
            "--adam_weight_decay_text_encoder", "0.01",
        ),
        LoraSpec(
            steps=STEPS, batch_size=2, learning_rate=RATE, text_learning_rate=2e-3,
            gradient_clip=0.0, text_encoder=True, targets=("attention", "feed-forward"),
            weighting="cosmap", trained_guidance=1.0,
        ),
        base=write_tiny_flux_base,
        n_tokens=77,
    ),
}  # fmt: skip


def write_data(folder: Path) -> None:
    """Writes `captioned`, `instance` and `class`: pictures of noise, the same everywhere."""
    for name, count, seed in (("captioned", N_IMAGES, 0), ("instance", N_INSTANCE, 1),
                              ("class", N_CLASS, 2)):  # fmt: skip
        place, stream = folder / name, np.random.RandomState(seed)
        place.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = stream.randint(0, 256, (20 + 2 * i, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{i}.png")
    rows = [{"file_name": f"{i}.png", "text": CAPTIONS[i % len(CAPTIONS)]} for i in range(N_IMAGES)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "captioned" / "metadata.jsonl").write_text(lines)
