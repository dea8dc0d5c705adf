"""The tasks that the LoRA flows share: from captioned images to files that other programs read."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass

from prefect.logging import get_run_logger
from tqdm import tqdm

from ddim_core.lora.texts import distinct_prompts
from flows.lora.plan import LoraPlan
from tasks.lora.data import CaptionedImages, captions_of, repeats_of
from tasks.lora.export import export_lora
from tasks.lora.inputs import embed_prompts, encode_latents
from tasks.lora.pictures import validation_pictures
from tasks.lora.record import LoraRecord, Stage
from tasks.lora.train import Training, train_lora
from tasks.lora.words import check_length
from tasks.reports.lora_card import write_card
from tasks.storage.naming import named
from tasks.storage.store import ArtifactRef
from tasks.tracking.lora import track_lora


@dataclass(frozen=True)
class FinishedLora(LoraRecord):
    """A LoRA, with the folder of its files, pictures and model card, and its run in MLflow."""

    folder: str
    mlflow_run: str


def train_and_export(
    plan: LoraPlan, data: CaptionedImages, class_data: CaptionedImages | None = None
) -> FinishedLora:
    """Trains a LoRA on captioned images, draws its validation pictures, and exports it.

    Args:
        plan: What is trained, on what base, and how.
        data: A stored folder of captioned images.
        class_data: One of the subject's class, for prior preservation.
    """
    _tell_notes(data)
    captions = captions_of(data) + (captions_of(class_data) if class_data else [])
    warn_of_length([*captions, *plan.validation_prompts], plan)
    training = _train(plan, data, class_data)
    prompt, validation = captions_of(data)[0], _validate(plan, training)
    exported = export_lora(
        training.adapter, plan.spec, plan.title, prompt, plan.pictures, plan.digests,
        location=plan.location, execution=plan.execution,
    )  # fmt: skip
    get_run_logger().info("round trip: %s", asdict(exported)["gate"])
    record = LoraRecord(
        title=plan.title,
        name=plan.name_of(training.adapter.artifact),
        lora=exported.lora,
        kohya=exported.kohya,
        gate=exported.gate,
        training=training,
        validation=validation,
        validation_prompts=plan.validation_prompts,
        data=data,
        class_data=class_data,
        base=plan.location,
        base_name=plan.base_name,
        base_digests=plan.digests,
    )
    folder = write_card(record, plan.spec, plan.latents, plan.pictures, plan.data_licence)
    run = track_lora(record, plan.spec, plan.latents, folder)
    return FinishedLora(**vars(record), folder=folder, mlflow_run=run)


def _tell_notes(data: CaptionedImages) -> None:
    """What was left out of the data: into the run's log and, under the CLI, the terminal."""
    for note in data.notes:
        get_run_logger().info("training images: %s", note)
        if os.environ.get("DDIM_TERMINAL"):
            tqdm.write(f"training images: {note}", file=sys.stderr)


def warn_of_length(prompts: list[str], plan: LoraPlan) -> None:
    """Says, once, how many prompts are longer than the base's text encoder reads."""
    if warning := check_length(prompts, plan.location):
        get_run_logger().warning(warning)


def _train(plan: LoraPlan, data: ArtifactRef, class_data: ArtifactRef | None) -> Training:
    captions = captions_of(data)
    class_captions = captions_of(class_data) if class_data else []
    latents = _latents(plan, data)
    class_latents = _latents(plan, class_data) if class_data else None
    embeddings = embed_prompts(
        distinct_prompts([*captions, *class_captions]), plan.text_digests,
        location=plan.location, execution=plan.execution,
    )  # fmt: skip
    return train_lora(
        plan.spec, latents, captions, class_latents, class_captions, repeats_of(data),
        repeats_of(class_data) if class_data else [], embeddings, plan.training_digests,
        location=plan.location, execution=plan.execution,
    )  # fmt: skip


def _latents(plan: LoraPlan, data: ArtifactRef) -> ArtifactRef:
    return encode_latents(
        data, plan.latents, plan.step, plan.digests["vae"],
        location=plan.location, execution=plan.execution,
    )  # fmt: skip


def _validate(plan: LoraPlan, training: Training) -> tuple[Stage, ...]:
    """Pictures of the validation prompts by the base (step 0) and at every kept checkpoint."""
    if not plan.validation_prompts:
        return ()

    def stage(step: int, adapter: ArtifactRef | None) -> Stage:
        pictures = named(validation_pictures, f"pictures at step {step}")(
            plan.validation_prompts, plan.pictures, plan.spec, adapter, plan.digests,
            location=plan.location, execution=plan.execution,
        )  # fmt: skip
        return Stage(step, pictures)

    return stage(0, None), *(stage(kept.step, kept.adapter) for kept in training.checkpoints)
