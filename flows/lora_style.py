"""A style LoRA: captioned images in, a checked LoRA for text-to-image out."""

from __future__ import annotations

from typing import Any

from prefect import flow

from ddim_core.lora_specs import LoraSpec
from flows.lora_asked import STYLE_RECIPE
from flows.lora_request import LoraPlan, plan
from flows.lora_scored_sets import embedded_style_sets, style_sets, unnamed_subjects
from flows.lora_scoring import held_out_images, score_lora, scoring
from flows.lora_training import train_and_export
from flows.naming import flow_name
from flows.runners import ONE_TASK_A_CORE
from tasks.embedded import LICENCES, style_folder
from tasks.lora_data import captions_of, data_content, data_place, prepare_captioned
from tasks.store import ArtifactRef, check_writable


@flow(
    name="lora-style",
    flow_run_name=flow_name,
    validate_parameters=True,
    task_runner=ONE_TASK_A_CORE,
)
def lora_style(
    base: str = "",
    data: str = "",
    title: str = "style",
    data_licence: str = "",
    resolution: int = 0,
    buckets: bool = False,
    flip: bool = False,
    crops: int = 0,
    rank: int | None = None,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: list[str] | None = None,
    rslora: bool = False,
    dora: bool = False,
    text_encoder: bool = False,
    steps: int | None = None,
    batch_size: int | None = None,
    accumulation: int = 1,
    learning_rate: float | None = None,
    text_learning_rate: float | None = None,
    schedule: str | None = None,
    warmup_steps: int = 0,
    cycles: int = 1,
    weight_decay: float = LoraSpec.weight_decay,
    gradient_clip: float = LoraSpec.gradient_clip,
    precision: str = "no",
    snr_gamma: float | None = None,
    noise_offset: float = 0.0,
    caption_dropout: float | None = None,
    checkpoint_every: int | None = None,
    checkpoint_limit: int = 0,
    validation_prompts: list[str] | None = None,
    picture_steps: int | None = None,
    guidance: float | None = None,
    scales: list[float] | None = None,
    score_prompts: list[str] | None = None,
    validation_data: str = "",
    clip: str = "",
    dino: str = "",
    seed: int = 0,
    device: str = "cpu",
    threads: int = 2,
    processes: int = 1,
    gradient_checkpointing: bool = False,
) -> dict[str, Any]:
    """Trains a style on captioned images, draws validation pictures, exports and registers it.

    Args:
        base: A Stable Diffusion folder (1.x, 2.x, XL) or hub id; empty: the embedded small one.
        data: A folder with `metadata.jsonl`, one with a `.txt` file beside each image, a Parquet
            file, or a hub id; empty: the embedded second style.
        title: Names the files and the registered model.
        data_licence: Of the images, for the model card.
        resolution: Side in pixels; 0 is the base's own.
        buckets, flip, crops: See `LatentSpec`.
        rank, alpha, dropout, targets, rslora, dora, text_encoder: Of the LoRA; see `LoraSpec`.
        steps, batch_size, accumulation, learning_rate, text_learning_rate, schedule, warmup_steps,
            cycles, weight_decay, gradient_clip, precision: Of its training; see `LoraSpec`.
        snr_gamma, noise_offset, caption_dropout: Of its loss; see `LoraSpec`.
        checkpoint_every, checkpoint_limit: Weights kept on the way; see `LoraSpec`.
        validation_prompts: Drawn by the base and at every kept checkpoint; they train nothing.
        picture_steps, guidance: How pictures are drawn.
        scales: Of the LoRA, to be scored against the base; empty: nothing is scored.
        score_prompts: Further prompts to score: what it was not trained on.
        validation_data: Captioned images it is not trained on, for the validation loss.
        clip, dino: Folders or hub ids, for the similarities known by these names.
        seed: Keys everything random.
        device, threads, processes, gradient_checkpointing: See `LoraExecution`.

    Returns:
        What `train_and_export` and `score_lora` return.

    Raises:
        ValueError: If the request cannot be.
    """
    check_writable()
    given = dict(locals())
    asked = lora_style_plan(given)
    how = scoring("style", given, asked)
    images = _images(data, asked)
    held_out = held_out_images("style", validation_data, asked, how)
    record = train_and_export(asked, images)
    if data:
        captions = captions_of(images)
        others = score_prompts or (unnamed_subjects(captions) if how.judged else [])
        sets = style_sets(images, captions, others, held_out, how.how)
    else:
        sets = embedded_style_sets(images, how.how)
    return record | score_lora(asked, record, how, sets, held_out)


def lora_style_plan(given: dict[str, Any]) -> LoraPlan:
    """Settles the flow's parameters.

    Raises:
        ValueError: For the first that cannot be.
    """
    if not given["data"]:
        if given["base"]:
            raise ValueError("data is empty; give the captioned images for your base")
        given = given | {"data_licence": given["data_licence"] or LICENCES["openmoji"]}
    settled = plan(given, STYLE_RECIPE)
    scoring("style", given, settled)
    return settled


def _images(data: str, asked: LoraPlan) -> ArtifactRef:
    if not data:
        return style_folder(asked.latents.resolution)
    place = data_place(data)
    return prepare_captioned(data_content(place), location=place)
