"""A style LoRA: captioned images in, a checked LoRA for text-to-image out."""

from __future__ import annotations

from prefect import flow

from flows.lora.plan import LoraPlan, style_plan
from flows.lora.prompt_sets import embedded_style_sets, style_sets, unnamed_subjects
from flows.lora.scoring import LoraOutcome, held_out_images, score_lora
from flows.lora.training import train_and_export
from flows.requests.flat import command_line, flat
from flows.requests.lora import StyleRequest
from flows.run.naming import flow_name
from flows.run.runners import ONE_TASK_A_CORE
from tasks.lora.data import (
    CaptionedImages,
    captions_of,
    data_content,
    data_place,
    prepare_captioned,
)
from tasks.storage.store import check_writable
from tasks.text2image.embedded import style_folder


@flow(
    name="lora-style",
    flow_run_name=flow_name,
    validate_parameters=False,
    task_runner=ONE_TASK_A_CORE,
)
@flat
def lora_style(request: StyleRequest) -> LoraOutcome:
    """Trains a style on captioned images, draws validation pictures, exports and registers it.

    Raises:
        ValueError: If the request cannot be.
    """
    check_writable()
    command = command_line("lora style", request)
    request = request.settled()
    plan = style_plan(request)
    images = _images(request.data, plan)
    held_out = held_out_images("style", request.pictures.validation_data, plan)
    record = train_and_export(plan, images)
    if request.data:
        captions = captions_of(images)
        others = request.pictures.score_prompts
        others = others or (unnamed_subjects(captions) if plan.judged else [])
        sets = style_sets(images, captions, others, held_out, plan.scored)
    else:
        sets = embedded_style_sets(images, plan.scored)
    return LoraOutcome(record, score_lora("style", plan, record, sets, held_out, command))


def _images(data: str, plan: LoraPlan) -> CaptionedImages:
    if not data:
        return style_folder(plan.latents.resolution)
    place = data_place(data)
    return prepare_captioned(data_content(place), location=place)
