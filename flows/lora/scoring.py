"""From an exported LoRA to its scorecard: pictures at every scale, measures, rows, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect.logging import get_run_logger

from ddim_core.diffusion.specs import Execution
from ddim_core.lora.scoring.row import LoraRow
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.lora.texts import distinct_prompts
from ddim_core.text2image.specs import JudgeSpec
from flows.lora.plan import LoraPlan
from flows.lora.prompt_sets import ScoredSet
from flows.lora.training import FinishedLora, warn_of_length
from tasks.image_scores.judge import judge_images
from tasks.image_scores.ready import StoredScore, ready_image_score
from tasks.images.stored_prompts import KIND as PROMPTS
from tasks.images.stored_prompts import store_prompts
from tasks.lora.data import captions_of, data_content, data_place, prepare_captioned
from tasks.lora.inputs import embed_prompts, encode_latents
from tasks.lora.record import LoraRecord
from tasks.lora.scoring.measure import JudgedScales, score_pictures, thumbnails
from tasks.lora.scoring.pictures import draw_prompts
from tasks.lora.scoring.table import lora_rows, trained_here, write_lora_rows
from tasks.lora.scoring.vision_models import model_digest
from tasks.lora.validation import ValidationCurve, validation_curve
from tasks.reports.lora import publish_lora_report, render_lora_report
from tasks.reports.page import asked_by, found_at
from tasks.storage.store import ArtifactRef
from tasks.text2image.embedded import held_out_folder
from tasks.text2image.judge import TrainedJudge, train_emoji_judge
from tasks.tracking.address import why_not_logged
from tasks.tracking.scorecard import track_scorecard

EMBEDDED_BATCH, BATCH = 32, 4


@dataclass(frozen=True)
class Scorecard:
    """What a LoRA's scoring gave.

    Attributes:
        report, table: Places; None where nothing was scored.
        rows: Their digests.
        reading: The report's sentences.
    """

    report: str | None = None
    table: str | None = None
    rows: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoraOutcome:
    """What the LoRA flows return.

    Attributes:
        lora: What was trained and exported.
        scorecard: What it gained and cost.
        warning: Of words that the base's tokenizer does not know, or None.
    """

    lora: FinishedLora
    scorecard: Scorecard
    warning: str | None = None


def held_out_images(kind: str, validation_data: str, plan: LoraPlan) -> ArtifactRef | None:
    """Returns captioned images for the validation loss: those given, or the embedded ones.

    Raises:
        ValueError: If they cannot be read.
    """
    if validation_data:
        place = data_place(validation_data)
        return prepare_captioned(data_content(place), location=place)
    return held_out_folder(kind, plan.latents.resolution) if plan.embedded else None


def score_lora(
    kind: str,
    plan: LoraPlan,
    record: LoraRecord,
    sets: Sequence[ScoredSet],
    held_out: ArtifactRef | None,
    command: str = "",
) -> Scorecard:
    """Draws, measures, tabulates and reports a LoRA.

    Args:
        kind: `style` or `subject`.
        plan: What was trained, and how it is scored.
        record: The LoRA.
        sets: The prompts; none, or no scale but 0: nothing is scored.
        held_out: A captioned folder it was not trained on, for the validation loss.
        command: What asks for all this, for the page's end.
    """
    if len(plan.scales) == 1 or not sets:
        return Scorecard()
    warn_of_length([text for scored in sets for text in scored.asked.prompts], plan)
    batch_size = EMBEDDED_BATCH if plan.judged else BATCH
    execution = Execution(device=plan.execution.device, batch_size=batch_size, threads=1)
    training = (
        train_emoji_judge.submit(
            JudgeSpec(resolution=plan.latents.resolution), plan.judge, Execution()
        )
        if plan.judged
        else None
    )
    judges = [ready_image_score(choice) for choice in plan.image_scores]
    drawn = [_submit_sweep(plan, record.lora, scored, execution) for scored in sets]
    judge = training.result() if training else None
    rows: list[LoraRow] = []
    of = trained_here(record, plan.spec)
    for scored, (sweep, other) in zip(sets, drawn, strict=True):
        pictures = [future.result() for future in sweep]
        known = replace(scored.known, base=other.result()) if other else scored.known
        judged = judged_scales(judges, scored.asked, pictures, execution)
        scores = score_pictures(
            scored.asked, list(plan.scales), pictures, known, dict(scored.aliases),
            judge or thumbnails(),
            {name: model_digest(folder) for name, folder in plan.models.items()},
            location=dict(plan.models), execution=execution, judged=judged,
        )  # fmt: skip
        rows += lora_rows(kind, of, scored.asked, pictures, scores, execution)
    return _report(plan, record, sets, rows, drawn, judge, held_out, command)


def _submit_sweep(
    plan: LoraPlan, lora: ArtifactRef, scored: ScoredSet, execution: Execution
) -> tuple[list[Any], Any]:
    """Futures of the pictures at every scale, and of the base's other pictures where needed."""

    def submit(prompts: PromptSet, scale: float) -> Any:
        return draw_prompts.submit(
            prompts, plan.digests, lora if scale else None, scale,
            location=plan.location, execution=execution,
        )  # fmt: skip

    sweep = [submit(scored.asked, scale) for scale in plan.scales]
    return sweep, None if scored.known.base else submit(scored.another_draw, 0.0)


def judged_scales(
    judges: Sequence[StoredScore],
    asked: PromptSet,
    pictures: Sequence[ArtifactRef],
    execution: Execution,
) -> list[JudgedScales]:
    """Judges the pictures of every scale one by one."""
    prompts = ArtifactRef(store_prompts(asked.texts), PROMPTS) if judges else None
    submitted = {
        judge: [
            judge_images.submit(
                picture, judge, prompts if judge.needs_prompts else None, 0, execution
            )
            for picture in pictures
        ]
        for judge in judges
    }
    return [
        JudgedScales(judge, tuple(future.result() for future in futures))
        for judge, futures in submitted.items()
    ]


def _report(
    plan: LoraPlan,
    record: LoraRecord,
    sets: Sequence[ScoredSet],
    rows: list[LoraRow],
    drawn: Sequence[tuple[list[Any], Any]],
    judge: TrainedJudge | None,
    held_out: ArtifactRef | None,
    command: str,
) -> Scorecard:
    table = write_lora_rows(rows)
    curve = _validation(plan, record, held_out).losses if held_out else ()
    report = render_lora_report(
        rows, [scored.asked for scored in sets],
        [[future.result() for future in sweep] for sweep, _ in drawn],
        record.data, record.training.losses, curve,
        judge.about if judge else None, plan.data_licence,
        [ref for ref in (record.lora, record.kohya) if ref],
    )  # fmt: skip
    report = asked_by(report, command)
    place = publish_lora_report(record.name, report, rows)
    tracked = track_scorecard(record.name, rows, found_at(report, place), return_state=True)
    if not tracked.is_completed():
        get_run_logger().warning("%s: %s", why_not_logged(), tracked.message)
    return Scorecard(place, table, tuple(row.row_digest for row in rows), tuple(report.reading))


def _validation(plan: LoraPlan, record: LoraRecord, held_out: ArtifactRef) -> ValidationCurve:
    """The losses on images that were held out."""
    captions = captions_of(held_out)
    latents = encode_latents(
        held_out, replace(plan.latents, flip=False, crops=0), plan.step, plan.digests["vae"],
        location=plan.location, execution=plan.execution,
    )  # fmt: skip
    embeddings = embed_prompts(
        distinct_prompts(captions), plan.text_digests,
        location=plan.location, execution=plan.execution,
    )  # fmt: skip
    return validation_curve(
        plan.spec, record.training.checkpoints, latents, captions, embeddings, plan.digests,
        location=plan.location, execution=plan.execution,
    )  # fmt: skip
