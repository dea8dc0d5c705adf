"""Images in, one number each out; of images that were judged before, nothing is judged again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ddim_core.common.digest import code_digest, digest
from ddim_core.devices.names import card_kind
from ddim_core.diffusion.specs import Execution
from tasks.image_scores.ready import scorer_in_memory
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class JudgedImages(ArtifactRef):
    """Arrays with `values`, float32 [n], one number an image.

    Attributes:
        n: Images.
        judged: Of these by this task; the others' numbers were in the store.
        images: The sha256 of the images' bytes.
    """

    n: int
    judged: int
    images: str


@cached_task
def judge_images(
    images: ArtifactRef,
    scorer: ArtifactRef,
    prompts: ArtifactRef | None,
    start: int,
    execution: Execution,
) -> JudgedImages:
    """Judges a shard of images.

    A longer shard that begins with the same images has only the others judged.

    Args:
        images: Arrays with `images`.
        scorer: The score.
        prompts: A stored list of n; image k was drawn for prompt k mod n. None where the score
            needs none.
        start: Index of the shard's first image.
        execution: How.
    """
    torch.set_num_threads(execution.threads)
    pixels = store.get_arrays(images)["images"]
    told = [code_digest(__name__), scorer, prompts, start, card_kind(execution.device)]
    name = digest(told, hashlib.sha256(pixels[:1].tobytes()).hexdigest(), list(pixels.shape[1:]))
    values = _longest_beginning(name, pixels)
    n_kept = len(values)
    if n_kept < len(pixels):
        texts: list[str] | None = None if prompts is None else json.loads(store.get(prompts))
        indices = range(start + n_kept, start + len(pixels))
        asked = None if texts is None else [texts[k % len(texts)] for k in indices]
        with card(execution.device) as device:
            new = scorer_in_memory(scorer, device)(pixels[n_kept:], asked)
        values = np.concatenate([values, new])
    made = JudgedImages(
        **vars(store.put_arrays({"values": values}, "values of images")),
        n=len(values),
        judged=len(values) - n_kept,
        images=_content(pixels),
    )
    store.bind(f"{name}/{made.n}", made)
    return made


def values_of(shards: list[str]) -> NDArray[np.float32]:
    """Returns the numbers of a cell's images, float32 [n], from the artefacts of its shards."""
    refs = [ArtifactRef(artifact=shard, kind="values of images") for shard in shards]
    return np.concatenate([store.get_arrays(ref)["values"] for ref in refs])


def _longest_beginning(name: str, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The numbers of as many of the first images as the store has."""
    known = store.bound(name, JudgedImages).values()
    for made in sorted(known, key=lambda made: -made.n):
        if _content(pixels[: made.n]) == made.images and made.n <= len(pixels):
            return store.get_arrays(made)["values"]
    return np.empty(0, np.float32)


def _content(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
