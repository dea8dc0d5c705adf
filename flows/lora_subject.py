"""DreamBooth with LoRA: a few images of one subject in, a checked LoRA that knows it out."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from tqdm import tqdm

from ddim_core.lora_data import has_captions
from ddim_core.lora_specs import LoraSpec
from flows.lora_asked import SUBJECT_RECIPE
from flows.lora_request import LoraPlan, plan
from flows.lora_scored_sets import embedded_subject_sets, subject_sets, unnamed_subjects
from flows.lora_scoring import held_out_images, score_lora, scoring
from flows.lora_training import train_and_export
from flows.naming import flow_name
from flows.runners import ONE_TASK_A_CORE
from tasks.embedded import LICENCES, subject_folder
from tasks.lora_class_images import class_images as draw_class_images
from tasks.lora_data import (
    captions_of,
    data_content,
    data_place,
    photos_content,
    prepare_captioned,
    prepare_photos,
)
from tasks.lora_words import check_words
from tasks.store import ArtifactRef, check_writable

CLASS_IMAGES = 100  # as diffusers' script


@flow(
    name="lora-subject",
    flow_run_name=flow_name,
    validate_parameters=True,
    task_runner=ONE_TASK_A_CORE,
)
def lora_subject(
    base: str = "",
    data: str = "",
    instance_prompt: str = "",
    instance_token: str = "sks",
    class_prompt: str = "",
    prior: bool = True,
    class_images: int | None = None,
    prior_weight: float = LoraSpec.prior_weight,
    title: str = "subject",
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
    caption_dropout: float = 0.0,
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
    """Trains a LoRA on one subject, with prior preservation, and exports and registers it.

    Args:
        base: A Stable Diffusion folder (1.x, 2.x, XL) or hub id; empty: the embedded small one.
        data: A folder of 3 to 6 images of the subject; with `metadata.jsonl` and no
            instance_prompt its captions are used; empty: the embedded subject.
        instance_prompt: Caption of every image, such as "a photo of sks cat".
        instance_token: The word in it that stands for the subject.
        class_prompt: Prompt of the class, such as "a photo of a cat"; empty: the captions without
            the instance token.
        prior: Prior preservation: also train on the base's own pictures of the class.
        class_images: How many of these are drawn, once.
        prior_weight: Their weight in the loss.
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
        What `train_and_export` and `score_lora` return, and `warning`, of words that the
        tokenizer does not know, or None.

    Raises:
        ValueError: If the request cannot be.
    """
    check_writable()
    given = dict(locals())
    asked = lora_subject_plan(given)
    how = scoring("subject", given, asked)
    images = _images(data, instance_prompt, asked)
    captions = captions_of(images)
    warning = check_words(captions, asked.location)
    if warning:
        _warn(warning)
    held_out = held_out_images("subject", validation_data, asked, how)
    classes = (
        _class_prompts(class_prompt, captions, instance_token) if prior or class_prompt else []
    )
    drawn = None
    if prior:
        n_images = class_images or (CLASS_IMAGES if base else SUBJECT_RECIPE["class_images"])
        drawn = draw_class_images(
            classes, n_images, asked.pictures,
            asked.digests, location=asked.location, execution=asked.execution,
        )  # fmt: skip
    record = train_and_export(asked, images, drawn)
    if data:
        others = score_prompts or (unnamed_subjects([*captions, *classes]) if how.judged else [])
        sets = subject_sets(images, captions, classes, others, held_out, how.how)
    else:
        sets = embedded_subject_sets(images, how.how)
    return record | score_lora(asked, record, how, sets, held_out) | {"warning": warning}


def _warn(text: str) -> None:
    """Into the run's log and, under the CLI, into the terminal, before any work is done."""
    get_run_logger().warning(text)
    if os.environ.get("DDIM_TERMINAL"):
        tqdm.write(f"warning: {text}", file=sys.stderr)


def lora_subject_plan(given: dict[str, Any]) -> LoraPlan:
    """Settles the flow's parameters.

    Raises:
        ValueError: For the first that cannot be.
    """
    if not given["data"]:
        if given["base"]:
            raise ValueError("data is empty; give a folder of 3 to 6 images of the subject")
        given = given | {"data_licence": given["data_licence"] or LICENCES["twemoji"]}
    elif not given["instance_prompt"] and not has_captions(Path(data_place(given["data"]))):
        raise ValueError(
            "instance_prompt is empty, and the images have no captions; give one, such as "
            f"'a photo of {given['instance_token']} cat'"
        )
    if given["class_images"] is not None and given["class_images"] < 1:
        raise ValueError(f"class_images is {given['class_images']}; it must be at least 1")
    settled = plan(given, SUBJECT_RECIPE)
    scoring("subject", given, settled)
    return settled


def _images(data: str, instance_prompt: str, asked: LoraPlan) -> ArtifactRef:
    if not data:
        return subject_folder(asked.latents.resolution)
    place = data_place(data)
    if instance_prompt:
        return prepare_photos(photos_content(place), instance_prompt, location=place)
    return prepare_captioned(data_content(place), location=place)


def _class_prompts(class_prompt: str, captions: list[str], token: str) -> list[str]:
    if class_prompt:
        return [class_prompt]
    plain = (" ".join(w for w in caption.split() if w != token) for caption in captions)
    found = list(dict.fromkeys(plain))
    if any(prompt in captions for prompt in found):
        raise ValueError(
            f"class_prompt is empty, and the instance token {token!r} is not in every caption, so "
            "that the class cannot be told from the subject; give a class_prompt, or prior = false"
        )
    return found
