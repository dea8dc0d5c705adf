"""DreamBooth with LoRA: a few images of one subject in, a checked LoRA that knows it out."""

from __future__ import annotations

import os
import sys

from prefect import flow
from prefect.logging import get_run_logger
from tqdm import tqdm

from flows.lora.plan import LoraPlan, n_class_images, subject_plan
from flows.lora.prompt_sets import embedded_subject_sets, subject_sets, unnamed_subjects
from flows.lora.scoring import LoraOutcome, held_out_images, score_lora
from flows.lora.training import train_and_export
from flows.requests.flat import command_line, flat
from flows.requests.lora import SubjectRequest
from flows.run.naming import flow_name
from flows.run.runners import ONE_TASK_A_CORE
from tasks.lora.class_images import class_images
from tasks.lora.data import (
    CaptionedImages,
    captions_of,
    class_content,
    data_content,
    data_place,
    photos_content,
    prepare_captioned,
    prepare_class,
    prepare_photos,
)
from tasks.lora.words import check_words
from tasks.storage.store import check_writable
from tasks.text2image.embedded import subject_folder


@flow(
    name="lora-subject",
    flow_run_name=flow_name,
    validate_parameters=False,
    task_runner=ONE_TASK_A_CORE,
)
@flat
def lora_subject(request: SubjectRequest) -> LoraOutcome:
    """Trains a LoRA on one subject, with prior preservation, and exports and registers it.

    Raises:
        ValueError: If the request cannot be.
    """
    check_writable()
    command = command_line("lora subject", request)
    request = request.settled()
    plan, subject = subject_plan(request), request.subject
    images = _images(request.data, subject.instance_prompt, plan)
    captions = captions_of(images)
    warning = check_words(captions, plan.location)
    if warning:
        _warn(warning)
    held_out = held_out_images("subject", request.pictures.validation_data, plan)
    classes, drawn = [], None
    if subject.prior or subject.class_prompt:
        classes = _class_prompts(subject.class_prompt, captions, subject.instance_token)
    if subject.prior:
        drawn = _given_class(request.data) or class_images(
            classes, n_class_images(request), plan.pictures, plan.digests,
            location=plan.location, execution=plan.execution,
        )  # fmt: skip
    record = train_and_export(plan, images, drawn)
    if request.data:
        others = request.pictures.score_prompts
        others = others or (unnamed_subjects([*captions, *classes]) if plan.judged else [])
        sets = subject_sets(images, captions, classes, others, held_out, plan.scored)
    else:
        sets = embedded_subject_sets(images, plan.scored)
    scored = score_lora("subject", plan, record, sets, held_out, command)
    return LoraOutcome(record, scored, warning)


def _warn(text: str) -> None:
    """Into the run's log and, under the CLI, into the terminal, before any work is done."""
    get_run_logger().warning(text)
    if os.environ.get("DDIM_TERMINAL"):
        tqdm.write(f"warning: {text}", file=sys.stderr)


def _images(data: str, instance_prompt: str, plan: LoraPlan) -> CaptionedImages:
    if not data:
        return subject_folder(plan.latents.resolution)
    place = data_place(data)
    if instance_prompt:
        return prepare_photos(photos_content(place), instance_prompt, location=place)
    return prepare_captioned(data_content(place), location=place)


def _given_class(data: str) -> CaptionedImages | None:
    """Images of the class that another trainer's settings name, in place of the base's own."""
    place = data_place(data) if data else ""
    content = class_content(place) if data else ""
    return prepare_class(content, location=place) if content else None


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
