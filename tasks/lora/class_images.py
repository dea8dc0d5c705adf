"""Pictures of a subject's class, drawn once by the base itself, for prior preservation."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ddim_core.lora.data import Captioned, write_captioned
from ddim_core.lora.pipeline import draw
from ddim_core.lora.specs import LoraExecution, PictureSpec
from ddim_core.text2image.base_folder import load_pipeline
from tasks.lora.data import CaptionedImages
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task


@cached_task
def class_images(
    prompts: list[str], n_images: int, spec: PictureSpec, base: dict[str, str], location: str,
    execution: LoraExecution,
) -> CaptionedImages:  # fmt: skip
    """Draws n pictures, the prompts in turn; returns them as a captioned folder."""
    torch.set_num_threads(execution.threads)
    texts = [prompts[i % len(prompts)] for i in range(n_images)]
    with card(execution.device) as device:
        drawn = draw(load_pipeline(Path(location), device), texts, spec.seeds(n_images), spec)
    items = [
        Captioned(f"{i:05d}.png", _png(pixels), text)
        for i, (pixels, text) in enumerate(zip(drawn, texts, strict=True))
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_captioned(items, Path(folder))
        ref = store.put_folder(Path(folder))
    return CaptionedImages(**vars(ref), n_images=n_images)


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
