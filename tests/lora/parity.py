"""The runs in which our loop is held against diffusers' own scripts; see record_scripts.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddim_core.lora.specs import LoraSpec

GOLDEN = Path(__file__).parents[1] / "golden" / "lora_scripts.npz"
RESOLUTION, STEPS, RATE = 16, 20, 1e-3
INSTANCE_PROMPT, CLASS_PROMPT = "a photo of sks cat", "a photo of a cat"
CAPTIONS = ("a drawing of a cat", "a painting of a dog", "a red cat", "a blue dog")
N_IMAGES, N_INSTANCE, N_CLASS = 8, 4, 6


@dataclass(frozen=True)
class Case:
    """One run: the script with its options, and the same options in our words."""

    script: str
    prediction_type: str
    options: tuple[str, ...]
    spec: LoraSpec
    flip: bool = False


CASES = {
    "text-to-image": Case(
        "train_text_to_image_lora.py",
        "epsilon",
        ("--lr_scheduler", "constant"),
        # Its clipping does nothing: it is handed an iterator that the optimiser has used up.
        LoraSpec(steps=STEPS, batch_size=2, learning_rate=RATE, gradient_clip=0.0),
    ),
    "text-to-image-options": Case(
        "train_text_to_image_lora.py",
        "v_prediction",
        (
            "--lr_scheduler", "cosine", "--lr_warmup_steps", "5", "--snr_gamma", "5",
            "--noise_offset", "0.1", "--gradient_accumulation_steps", "2", "--random_flip",
        ),
        LoraSpec(
            steps=STEPS, batch_size=2, learning_rate=RATE, gradient_clip=0.0, accumulation=2,
            schedule="cosine", warmup_steps=5, snr_gamma=5.0, noise_offset=0.1,
        ),
        flip=True,
    ),
    "dreambooth": Case(
        "train_dreambooth_lora.py",
        "epsilon",
        (
            "--with_prior_preservation", "--prior_loss_weight", "0.7", "--train_text_encoder",
            "--max_grad_norm", "0.5", "--lr_scheduler", "constant",
        ),
        LoraSpec(
            steps=STEPS, batch_size=2, learning_rate=RATE, gradient_clip=0.5, prior_weight=0.7,
            text_encoder=True,
        ),
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
