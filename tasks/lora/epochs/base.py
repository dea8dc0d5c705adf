"""A base of any family in, and what of it decides how its pictures are drawn, out."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

from prefect import task

from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.fitting import require_setting
from ddim_core.safe_files.weight_names import TENSORS
from ddim_core.samplers.name import parse_sampler
from ddim_core.text2image.prompts import read_prompts
from tasks.checkpoints.pipelines import pipeline_in_memory
from tasks.images.stored_prompts import store_prompts
from tasks.lora.epochs.files import StoredEpoch
from tasks.sampling.asked_prompts import texts_of
from tasks.sampling.conditions import store_conditions
from tasks.storage.store import ArtifactRef

UNGUIDED = 1.0


@dataclass(frozen=True)
class ScoredBase:
    """A base in the store.

    Attributes:
        ref: It.
        name: For people.
        pipeline: Its class.
        resolution: Height and width of its pictures, in pixels.
        guidance: What its own call takes where nothing is asked.
    """

    ref: ArtifactRef
    name: str
    pipeline: str
    resolution: int
    guidance: float


@dataclass(frozen=True)
class AskedPrompts:
    """What pictures are drawn for.

    Attributes:
        texts: The prompts; of what somebody encoded them to, their numbers.
        stored: The digest of the list; None where they are encoded already.
        encoded: What they are encoded to, where that was given.
    """

    texts: tuple[str, ...]
    stored: str | None
    encoded: ArtifactRef | None


@task(name="open-base")
def open_base(ref: ArtifactRef, name: str) -> ScoredBase:
    """Looks a stored base over: what it is follows from its content, so nothing is cached.

    Raises:
        ValueError: If it takes no prompts, no LoRAs, or draws no squares.
    """
    opened = pipeline_in_memory(ref)
    if opened.takes.modality != "text-to-image" or not hasattr(
        opened.pipeline, "load_lora_weights"
    ):
        raise ValueError(
            f"{name} is a {opened.name}, which takes no LoRAs; give a text-to-image base, such as "
            "Stable Diffusion 1.x, 2.x, XL or 3, or Flux"
        )
    if opened.height != opened.width:
        raise ValueError(
            f"{name} draws {opened.height} x {opened.width} pixels; only squares are scored"
        )
    told = opened.takes.guidance_name
    call = inspect.signature(type(opened.pipeline).__call__).parameters
    usual = call[told].default if told else UNGUIDED
    return ScoredBase(ref, name, opened.name, opened.height, float(usual))


@task(name="asked-prompts")
def asked_prompts(location: str, base: ScoredBase) -> AskedPrompts:
    """Reads prompts, or for a base without text encoders what somebody encoded them to.

    Raises:
        ValueError: If there are none, one is given twice, or the base takes others.
    """
    if location.endswith(TENSORS):
        given = store_conditions(location, base.ref)
        _, n = texts_of(given.artifact, True)
        assert n is not None
        return AskedPrompts(tuple(f"prompt {i + 1}" for i in range(n)), None, given)
    texts = read_prompts(location)
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise ValueError(f"{Path(location).name} has {twice!r} twice; each prompt is given once")
    if not pipeline_in_memory(base.ref).encodes:
        raise ValueError(
            f"{base.name} has no text encoders here; give as prompts a .safetensors file of what "
            "they would make of them"
        )
    return AskedPrompts(tuple(texts), store_prompts(texts), None)


@task(name="require-loras-fit")
def require_loras_fit(base: ScoredBase, epochs: list[StoredEpoch]) -> None:
    """Makes sure, before anything is drawn, that LoRA files can be laid over a base.

    Those of one layout fit or do not fit together, so one of each is tried.

    Raises:
        ValueError: If one does not, by its name.
    """
    for one in {one.layout: one for one in reversed(epochs)}.values():
        try:
            pipeline_in_memory(base.ref, loras=((one.artifact, 1.0),))
        except ValueError as error:
            raise ValueError(f"{one.name} does not fit {base.name}: {error}") from error


@task(name="require-samplers")
def require_samplers(base: ScoredBase, samplers: list[str], steps: int, guidance: float) -> None:
    """Makes sure, without the network, that samplers and settings fit a base.

    Raises:
        ValueError: If one does not, with what would.
    """
    opened = pipeline_in_memory(base.ref)
    for sampler in samplers:
        require_setting(opened, Setting(parse_sampler(sampler), steps, guidance))
