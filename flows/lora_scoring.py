"""From an exported LoRA to its scorecard: pictures at every scale, measures, rows, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect.logging import get_run_logger

from ddim_core.lora_text import distinct_prompts
from ddim_core.scorecard_specs import PromptSet, require_scales
from ddim_core.specs import Execution
from ddim_core.text2image_specs import JudgeSpec
from flows.lora_request import LoraPlan
from flows.lora_scored_sets import ScoredSet
from flows.lora_training import warn_of_length
from tasks.embedded import held_out_folder
from tasks.emoji_judge import train_emoji_judge
from tasks.lora_data import captions_of, data_content, data_place, prepare_captioned
from tasks.lora_inputs import embed_prompts, encode_latents
from tasks.lora_report import publish_lora_report, render_lora_report
from tasks.lora_table import lora_rows, write_lora_rows
from tasks.lora_validation import validation_curve
from tasks.mlflow_address import why_not_logged
from tasks.scorecard import score_pictures, thumbnails
from tasks.scored_pictures import draw_prompts
from tasks.store import ArtifactRef
from tasks.tracking_scorecard import track_scorecard
from tasks.vision_models import model_digest, model_folder

EMBEDDED_SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
SCALES = (0.0, 0.5, 1.0)
EMBEDDED_BATCH, BATCH = 32, 4
EMBEDDED_STEPS = 16  # as good to the judge as 25, and a third cheaper


@dataclass(frozen=True)
class Scoring:
    """How a LoRA is scored.

    Attributes:
        kind: `style` or `subject`.
        scales: 0 first; only it means that nothing is scored.
        embedded: The data are the embedded ones.
        judged: The base is the embedded one, whose subjects the judge knows.
        models: Folders of `clip` and `dino`, where they are given.
        how: Sampling settings of all prompt sets.
    """

    kind: str
    scales: tuple[float, ...]
    embedded: bool
    judged: bool
    models: Mapping[str, str]
    how: PromptSet


def scoring(kind: str, given: Mapping[str, Any], plan: LoraPlan) -> Scoring:
    """Settles a flow's parameters `scales`, `clip` and `dino`.

    Raises:
        ValueError: For the first that cannot be.
    """
    judged = not given["base"]
    usual = EMBEDDED_SCALES if judged else SCALES
    asked = given["scales"]
    return Scoring(
        kind=kind,
        scales=require_scales(usual if asked is None else tuple(asked)),
        embedded=not given["data"],
        judged=judged,
        models={
            name: str(model_folder(name, given[name])) for name in ("clip", "dino") if given[name]
        },
        how=PromptSet(
            role="trained",
            prompts=("",),
            steps=EMBEDDED_STEPS if judged else plan.pictures.steps,
            guidance=plan.pictures.guidance,
            resolution=plan.pictures.resolution,
            seed=plan.pictures.seed,
        ),
    )


def held_out_images(
    kind: str, validation_data: str, plan: LoraPlan, asked: Scoring
) -> ArtifactRef | None:
    """Returns captioned images for the validation loss: those given, or the embedded ones.

    Raises:
        ValueError: If they cannot be read.
    """
    if validation_data:
        place = data_place(validation_data)
        return prepare_captioned(data_content(place), location=place)
    return held_out_folder(kind, plan.latents.resolution) if asked.embedded else None


def score_lora(
    plan: LoraPlan,
    record: Mapping[str, Any],
    asked: Scoring,
    sets: Sequence[ScoredSet],
    held_out: ArtifactRef | None,
) -> dict[str, Any]:
    """Draws, measures, tabulates and reports a LoRA.

    Args:
        plan: What was trained.
        record: What `train_and_export` returned.
        asked: How it is scored.
        sets: The prompts; none, or no scale but 0: nothing is scored.
        held_out: A captioned folder it was not trained on, for the validation loss.

    Returns:
        `report` and `table` (places), `scorecard` (the rows' digests) and `reading`.
    """
    if len(asked.scales) == 1 or not sets:
        return {"report": None, "table": None, "scorecard": [], "reading": []}
    warn_of_length([text for scored in sets for text in scored.asked.prompts], plan)
    batch_size = EMBEDDED_BATCH if asked.judged else BATCH
    execution = Execution(device=plan.execution.device, batch_size=batch_size, threads=1)
    extractor: Any = (
        train_emoji_judge.submit(JudgeSpec(resolution=plan.latents.resolution), Execution())
        if asked.judged
        else thumbnails()
    )
    drawn = [_submit_sweep(plan, record["lora"], asked, scored, execution) for scored in sets]
    if asked.judged:
        extractor = extractor.result()
    rows: list[dict[str, Any]] = []
    for scored, (sweep, other) in zip(sets, drawn, strict=True):
        pictures = [future.result() for future in sweep]
        known = dict(scored.known)
        if other is not None:
            known["base"] = other.result()
        scores = score_pictures(
            scored.asked, list(asked.scales), pictures, known, dict(scored.aliases), extractor,
            {name: model_digest(folder) for name, folder in asked.models.items()},
            location=dict(asked.models),
        )  # fmt: skip
        rows += lora_rows(asked.kind, record, plan.spec, scored.asked, pictures, scores, execution)
    return _report(plan, record, asked, sets, rows, drawn, extractor, held_out)


def _submit_sweep(
    plan: LoraPlan, lora: ArtifactRef, asked: Scoring, scored: ScoredSet, execution: Execution
) -> tuple[list[Any], Any]:
    """Futures of the pictures at every scale, and of the base's other pictures where needed."""

    def submit(prompts: PromptSet, scale: float) -> Any:
        return draw_prompts.submit(
            prompts, plan.digests, lora if scale else None, scale,
            location=plan.location, execution=execution,
        )  # fmt: skip

    sweep = [submit(scored.asked, scale) for scale in asked.scales]
    return sweep, None if "base" in scored.known else submit(scored.another_draw, 0.0)


def _report(
    plan: LoraPlan,
    record: Mapping[str, Any],
    asked: Scoring,
    sets: Sequence[ScoredSet],
    rows: list[dict[str, Any]],
    drawn: Sequence[tuple[list[Any], Any]],
    extractor: Mapping[str, Any],
    held_out: ArtifactRef | None,
) -> dict[str, Any]:
    table = write_lora_rows(rows)
    curve = _validation(plan, record, held_out) if held_out else []
    judge = {key: extractor[key] for key in ("accuracy", "n_test")} if asked.judged else None
    report = render_lora_report(
        rows, [scored.asked for scored in sets],
        [[future.result() for future in sweep] for sweep, _ in drawn],
        record["data"], record["training"]["losses"], curve,
        {"judge": judge, "licence": plan.data_licence},
    )  # fmt: skip
    place = publish_lora_report(record["name"], report, rows)
    tracked = track_scorecard(record["name"], rows, report, return_state=True)
    if not tracked.is_completed():
        get_run_logger().warning("%s: %s", why_not_logged(), tracked.message)
    return {
        "report": place,
        "table": table,
        "scorecard": [row["row_digest"] for row in rows],
        "reading": report["reading"],
    }


def _validation(plan: LoraPlan, record: Mapping[str, Any], held_out: ArtifactRef) -> list[Any]:
    """Pairs of a step and the loss on images that were held out."""
    captions = captions_of(held_out)
    latents = encode_latents(
        held_out, replace(plan.latents, flip=False, crops=0), plan.step, plan.digests["vae"],
        location=plan.location, execution=plan.execution,
    )  # fmt: skip
    embeddings = embed_prompts(
        distinct_prompts(captions), plan.text_digests,
        location=plan.location, execution=plan.execution,
    )  # fmt: skip
    found = validation_curve(
        plan.spec, record["training"]["checkpoints"], latents, captions, embeddings, plan.digests,
        location=plan.location, execution=plan.execution,
    )  # fmt: skip
    return list(found["curve"])
