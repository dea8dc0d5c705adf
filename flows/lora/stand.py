"""What the pictures of all LoRAs that are scored share: opened, read, and made sure to fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ddim_core.diffusion.specs import Execution
from ddim_core.image_scores.registry import choices_of, require_no_prompts_needed
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.text2image.embedded import embedded_base, judge_digest
from ddim_core.text2image.specs import JudgeSpec
from flows.lora.plan import (
    EMBEDDED_GUIDANCE,
    EMBEDDED_NAME,
    EMBEDDED_SCORED_STEPS,
    PICTURE_STEPS,
)
from flows.requests.images import LARGEST_BATCH
from flows.requests.lora_score import LoraScoreRequest, require_pictures
from tasks.checkpoints.addresses import name_of
from tasks.checkpoints.open import import_checkpoint
from tasks.image_scores.ready import StoredScore, ready_image_score
from tasks.images.prepare import content_of
from tasks.lora.epochs.base import (
    AskedPrompts,
    ScoredBase,
    asked_prompts,
    open_base,
    require_loras_fit,
    require_samplers,
)
from tasks.lora.epochs.files import StoredEpoch
from tasks.lora.epochs.real import RealImages, real_images, require_unseen
from tasks.lora.scoring.measure import Compared, thumbnails
from tasks.lora.scoring.vision_models import model_folder
from tasks.storage.naming import named
from tasks.storage.store import ArtifactRef
from tasks.text2image.judge import train_emoji_judge

LEAST_PICTURES = 2


@dataclass(frozen=True)
class Stand:
    """All that the pictures of every LoRA share.

    Attributes:
        request: What was asked.
        base: What they lie over.
        prompts, asked: What is drawn, and how.
        known: What it is compared with.
        training: The images of the style or the subject.
        extractor: Waits for the judge, which may still be trained, or gives the thumbnails.
        models: Folders of `clip` and `dino`, where they are given.
        judges: What judges pictures one by one.
        execution: Device and threads.
        remarks: On what was left out, for people.
    """

    request: LoraScoreRequest
    base: ScoredBase
    prompts: AskedPrompts
    asked: PromptSet
    known: Compared
    training: RealImages
    extractor: Callable[[], ArtifactRef]
    models: dict[str, str]
    judges: list[StoredScore]
    execution: Execution
    remarks: list[str]


def stand_of(request: LoraScoreRequest, epochs: list[StoredEpoch]) -> Stand:
    """Opens the base, reads prompts and images, and makes sure that all of it fits."""
    own, machine, asked = not request.lora.base, request.machine, request.pictures
    remarks: list[str] = []
    location = str(embedded_base()) if own else request.lora.base
    base = open_base(
        import_checkpoint(location), EMBEDDED_NAME if own else name_of(request.lora.base)
    )
    require_loras_fit(base, epochs)
    # Beside all that follows, pictures included: nobody asks the judge before they are drawn.
    judge = (
        train_emoji_judge.submit(JudgeSpec(resolution=base.resolution), judge_digest(), Execution())
        if own
        else None
    )
    prompts = asked_prompts(request.target.prompts, base)
    require_pictures(len(prompts.texts), asked.images_per_prompt)
    usual = (EMBEDDED_SCORED_STEPS, EMBEDDED_GUIDANCE) if own else (PICTURE_STEPS, base.guidance)
    pictures = PromptSet(
        role="given", prompts=prompts.texts, per_prompt=asked.images_per_prompt,
        steps=asked.steps or usual[0],
        guidance=usual[1] if asked.guidance is None else asked.guidance,
        resolution=base.resolution, seed=asked.seed,
    )  # fmt: skip
    if len(pictures.texts) < LEAST_PICTURES:
        raise ValueError(
            "prompts and images_per_prompt make 1 picture; intervals need at least "
            f"{LEAST_PICTURES}"
        )
    require_samplers(base, list(asked.samplers), pictures.steps, pictures.guidance)
    if prompts.stored is None:
        require_no_prompts_needed(choices_of(asked.image_scores), base.name)
    training = _real(request.images, request.training_split, base)
    if request.kind == "style" and training.n_images < LEAST_PICTURES:
        raise ValueError(
            f"style_images {request.images!r} holds 1 image; a style needs at least "
            f"{LEAST_PICTURES}"
        )
    models = {
        name: str(model_folder(name, place))
        for name, place in (("clip", asked.clip), ("dino", asked.dino))
        if place
    }
    judges = [ready_image_score(choice) for choice in choices_of(asked.image_scores)]
    held_out = _real(*request.held_out, base) if request.held_out else None
    of = name_of(request.held_out[0]) if request.held_out else ""
    if held_out and (n := require_unseen(held_out, training, of)):
        remarks.append(
            f"{n} of {held_out.n_images} held-out images are training images and were left out."
        )
    target = {request.kind: training}
    execution = Execution(device=machine.device, batch_size=LARGEST_BATCH, threads=1)
    known = Compared(training, real=held_out, **target)
    return Stand(
        request, base, prompts, pictures, known, training, judge.result if judge else thumbnails,
        models, judges, execution, remarks,
    )  # fmt: skip


def _real(location: str, split: str, base: ScoredBase) -> RealImages:
    read = named(real_images, f"real images {name_of(location)} {split}")
    return read(content_of(location), split, base.resolution, location=location)
