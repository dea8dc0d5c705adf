"""What a LoRA training reads, computed once: latents of images, embeddings of prompts."""

from __future__ import annotations

from pathlib import Path

import torch

from ddim_core.lora.data import read_captioned
from ddim_core.lora.latents import encode_latents as latents_of
from ddim_core.lora.specs import LatentSpec, LoraExecution
from ddim_core.lora.texts import embed_prompts as embeddings_of
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def encode_latents(
    data: ArtifactRef, spec: LatentSpec, step: int, vae: str, location: str,
    execution: LoraExecution,
) -> ArtifactRef:  # fmt: skip
    """Encodes images by the base's autoencoder; cached on images, cuts and autoencoder."""
    torch.set_num_threads(execution.threads)
    items = read_captioned(store.get_folder(data))
    with card(execution.device) as device:
        arrays = latents_of(Path(location), items, spec, step, device)
    return store.put_arrays(arrays, "latents")


@cached_task
def embed_prompts(
    prompts: list[str], text: dict[str, str], location: str, execution: LoraExecution,
) -> ArtifactRef:  # fmt: skip
    """Embeds prompts by the base's text encoder; cached on both."""
    torch.set_num_threads(execution.threads)
    with card(execution.device) as device:
        arrays = embeddings_of(Path(location), prompts, device)
    return store.put_arrays(arrays, "embeddings")
