"""Small trainings for tests: pictures of noise, their latents and prompts, a job."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ddim_core.lora.data import Captioned
from ddim_core.lora.latents import encode_latents
from ddim_core.lora.specs import LatentSpec, LoraExecution, LoraSpec
from ddim_core.lora.texts import distinct_prompts, embed_prompts
from ddim_core.lora.training.run import LoraJob

STEP = 4  # pixels per cell of the tiny base's deepest level
ONE_THREAD = LoraExecution(threads=1)


def noise_pictures(n: int, caption: str = "a photo of a cat", seed: int = 0) -> list[Captioned]:
    """n pictures of several shapes."""
    stream = np.random.RandomState(seed)
    items = []
    for i in range(n):
        buffer = io.BytesIO()
        pixels = stream.randint(0, 256, (20 + 4 * (i % 3), 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        items.append(Captioned(f"{i}.png", buffer.getvalue(), caption))
    return items


def small_job(base: Path, spec: LoraSpec, with_class: bool = False) -> LoraJob:
    """A training on six pictures, mirrored and in buckets, perhaps with four of the class."""
    latents = LatentSpec(resolution=16, flip=True, crops=2, buckets=True)
    items = noise_pictures(6, "a photo of sks cat")
    others = noise_pictures(4, "a photo of a cat", seed=1) if with_class else []
    captions, class_captions = [i.caption for i in items], [i.caption for i in others]
    return LoraJob(
        spec=spec,
        base=base,
        execution=ONE_THREAD,
        embeddings=embed_prompts(base, distinct_prompts([*captions, *class_captions])),
        latents=encode_latents(base, items, latents, STEP),
        captions=captions,
        class_latents=encode_latents(base, others, latents, STEP) if with_class else None,
        class_captions=tuple(class_captions),
    )
