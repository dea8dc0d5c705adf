"""LoRAs that somebody else trained: every epoch at every scale, ranked, against the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger

from ddim_core.lora.scoring.ranking import Candidate, Ranking, rank, verdict
from ddim_core.lora.scoring.row import LoraRow
from ddim_core.reports.lora_answer import answer
from flows.grid.gate import RegressionError
from flows.lora.scoring import Scorecard, judged_scales
from flows.lora.stand import Stand, stand_of
from flows.requests.flat import command_line, flat
from flows.requests.images import Machine
from flows.requests.lora_score import LoraScoreRequest
from flows.requests.samplers.cells import ALL_ARITHMETIC, versions
from flows.run.naming import flow_name
from flows.run.runners import ONE_TASK_A_CORE
from tasks.checkpoints.addresses import name_of
from tasks.checkpoints.identity import mark_scored
from tasks.images.prepare import content_of
from tasks.lora.epochs.draw import draw_with_loras
from tasks.lora.epochs.files import BASE, StoredEpoch, digest_of_epochs, store_epochs, told_apart
from tasks.lora.epochs.report import publish_epochs, render_epochs
from tasks.lora.scoring.measure import PictureScores, score_pictures
from tasks.lora.scoring.pictures import DrawnPictures
from tasks.lora.scoring.table import ScoredLora, lora_rows, write_lora_rows
from tasks.lora.scoring.vision_models import model_digest
from tasks.reports.page import asked_by, found_at
from tasks.sampling.conditions import conditions_of
from tasks.sampling.pipeline import Laid
from tasks.storage.naming import named
from tasks.storage.store import check_writable
from tasks.tracking.address import why_not_logged
from tasks.tracking.scorecard import track_scorecard

MOST_NAMED = 3


@dataclass(frozen=True)
class LoraScore:
    """What scoring LoRAs gave.

    Attributes:
        scorecard: Places of report and table, rows, and what is read from the numbers.
        ship: The name of the file that is best; None where none is proven better than the base.
        scale, sampler: Its setting.
        call: `better`, `worse` or `tied` against what was named, or None.
    """

    scorecard: Scorecard
    ship: str | None
    scale: float
    sampler: str
    call: str | None


@flow(
    name="lora-score",
    flow_run_name=flow_name,
    validate_parameters=False,
    task_runner=ONE_TASK_A_CORE,
)
@flat
def lora_score(request: LoraScoreRequest) -> LoraScore:
    """Draws every LoRA file at every scale and sampler from the base's noise, and ranks them.

    Raises:
        ValueError: If the request cannot be.
        RegressionError: If a gate was asked for and the LoRAs are proven worse.
    """
    check_writable()
    against = [request.verdict.against] if request.verdict.against else []
    # Whatever folder they are from: the others were not trained on from them.
    older = [replace(one, series=f"against {one.series}") for one in store_epochs(against)]
    known = {one.artifact for one in older}
    asked = store_epochs(request.lora.loras)
    newer = [one for one in asked if one.artifact not in known]
    if not newer:
        raise ValueError(
            f"against is {request.verdict.against!r}, which holds all of the LoRAs; leave it out"
        )
    given = told_apart([*older, *newer])
    stand = stand_of(request, given)
    scales = sorted({0.0, *map(float, request.pictures.scales)})
    drawn, diverged = _drawn(stand, given, scales)
    epochs = [one for one in given if one.artifact not in diverged]
    sides = (given[: len(older)], given[len(older) :])
    for side in filter(None, sides):
        if all(one.artifact in diverged for one in side):
            raise ValueError(" ".join(diverged[one.artifact] for one in side[:MOST_NAMED]))
    n_older = sum(one.artifact not in diverged for one in older)
    scores = _scored(stand, epochs, scales, drawn)
    ranking = rank(list(_candidates(epochs, scores)))
    call, difference = verdict(ranking, n_older) if older else (None, None)
    rows = _rows(stand, epochs, drawn, scores)
    reading = answer(ranking, stand.asked, request.kind, call, difference, request.verdict.against)
    reading += [*diverged.values(), *stand.remarks]
    scorecard = _reported(stand, ranking, drawn, scales, rows, reading)
    content = content_of(request.images)
    mark_scored(request.identity(content), digest_of_epochs(asked), [])
    if request.verdict.gate and call == "worse":
        raise RegressionError(f"{reading[1]} See {scorecard.report}")
    first = ranking.first
    one = first.candidate
    return LoraScore(scorecard, one.name if first.is_proven else None, one.scale, one.sampler, call)


Pictures = dict[tuple[str, str, float], DrawnPictures]
"""By the digest of a LoRA (empty: the base), sampler and scale."""


def _drawn(
    stand: Stand, epochs: Sequence[StoredEpoch], scales: Sequence[float]
) -> tuple[Pictures, dict[str, str]]:
    """Draws the base and every LoRA at every scale, by every sampler.

    Returns:
        The pictures; and of every LoRA that draws none, such as one that diverged, by its digest
        a sentence. All fit the base, which draws with the same settings.
    """
    asked = stand.request.pictures
    submitted: dict[tuple[str, str, float], Any] = {}
    for sampler in asked.samplers:
        submitted["", sampler, 0.0] = _submit(stand, sampler, (), (), "the base")
        for one in epochs:
            for scale in scales[1:]:
                laid = ((one.artifact, scale),)
                over_texts = laid if one.with_texts else ()
                submitted[one.artifact, sampler, scale] = _submit(
                    stand, sampler, laid, over_texts, f"{one.name} at {scale:g}"
                )
    drawn: Pictures = {}
    diverged: dict[str, str] = {}
    names = {one.artifact: one.name for one in epochs}
    for (artifact, sampler, scale), future in submitted.items():
        try:
            drawn[artifact, sampler, scale] = future.result()
        except ValueError as error:
            if not artifact:
                raise
            told = f"{names[artifact]} is left out: at {scale:g} by {sampler} {error}."
            diverged.setdefault(artifact, told)
    return drawn, diverged


def _submit(stand: Stand, sampler: str, laid: Laid, over_texts: Laid, name: str) -> Any:
    """A future of pictures with LoRAs over the networks that draw, and over those that encode."""
    machine, side = Machine(device=stand.request.machine.device), stand.base.resolution
    libraries = versions(*ALL_ARITHMETIC)
    on_card, dtype = machine.card_at(side), stand.request.machine.dtype
    conditions = stand.prompts.encoded
    if conditions is None:
        assert stand.prompts.stored is not None
        conditions = conditions_of(
            stand.base.ref, stand.prompts.stored, over_texts, libraries, on_card, dtype,
            stand.execution,
        ).result()  # fmt: skip
    return named(draw_with_loras, f"{name} by {sampler}").submit(
        stand.asked, sampler, stand.base.ref, laid, conditions, machine.batch_at(side),
        dtype, libraries, on_card, execution=stand.execution,
    )  # fmt: skip


Scores = dict[tuple[str, str], PictureScores]


def _scored(
    stand: Stand, epochs: Sequence[StoredEpoch], scales: Sequence[float], drawn: Pictures
) -> Scores:
    """Takes all measures of every LoRA by every sampler, at all of its scales."""
    asked = stand.request.pictures
    digests = {name: model_digest(folder) for name, folder in stand.models.items()}
    extractor, submitted = stand.extractor(), {}
    for sampler in asked.samplers:
        for one in epochs:
            pictures = _line(one, sampler, scales, drawn)
            judged = judged_scales(stand.judges, stand.asked, pictures, stand.execution)
            scores = named(score_pictures, f"scores of {one.name}")
            submitted[one.artifact, sampler] = scores.submit(
                stand.asked, list(scales), pictures, stand.known, {}, extractor, digests,
                location=stand.models, execution=stand.execution, judged=judged,
            )  # fmt: skip
    return {key: future.result() for key, future in submitted.items()}


def _line(
    one: StoredEpoch, sampler: str, scales: Sequence[float], drawn: Pictures
) -> list[DrawnPictures]:
    """The pictures of a LoRA by scale, the base's first."""
    base = drawn["", sampler, 0.0]
    return [base, *(drawn[one.artifact, sampler, scale] for scale in scales[1:])]


def _candidates(epochs: Sequence[StoredEpoch], scores: Scores) -> Any:
    for (artifact, sampler), found in scores.items():
        place = next(i for i, one in enumerate(epochs) if one.artifact == artifact)
        of = epochs[place]
        one = partial(Candidate, of.name, of.number, place, of.series)
        base = found.scores[0].deciding
        for at_scale in found.scores[1:]:
            yield one(at_scale.scale, sampler, at_scale.deciding, base)


def _rows(
    stand: Stand, epochs: Sequence[StoredEpoch], drawn: Pictures, scores: Scores
) -> list[list[LoraRow]]:
    """The table's rows, together those of a LoRA by a sampler."""
    request = stand.request
    found = []
    for (artifact, sampler), taken in scores.items():
        one = next(one for one in epochs if one.artifact == artifact)
        scales = [at.scale for at in taken.scores]
        of = ScoredLora(
            artifact, stand.base.ref.artifact, stand.training.artifact, stand.base.name,
            name_of(request.images), one.rank, sampler=sampler, name=one.name, number=one.number,
        )  # fmt: skip
        pictures = _line(one, sampler, scales, drawn)
        found.append(lora_rows(request.kind, of, stand.asked, pictures, taken, stand.execution))
    return found


def _reported(
    stand: Stand,
    ranking: Ranking,
    drawn: Pictures,
    scales: Sequence[float],
    rows: Sequence[list[LoraRow]],
    reading: list[str],
) -> Scorecard:
    """Writes table, page and MLflow's runs."""
    flat_rows = [row for of_one in rows for row in of_one]
    table = write_lora_rows(flat_rows)
    first = ranking.first.candidate
    digests = {row.lora: row.lora_digest for row in flat_rows}
    shown = {BASE: drawn["", first.sampler, 0.0]} | {
        str(one.candidate.name): drawn[digests[one.candidate.name], first.sampler, first.scale]
        for one in ranking.files
    }
    swept = {f"{scale:g}": drawn[digests[first.name], first.sampler, scale] for scale in scales[1:]}
    report = asked_by(
        render_epochs(ranking, stand.asked, shown, swept, stand.training, flat_rows, reading),
        command_line("lora score", stand.request),
    )
    place = publish_epochs(report, ranking, flat_rows)
    for of_one in rows:
        name = f"{of_one[0].lora} on {of_one[0].base}"
        tracked = track_scorecard(name, of_one, found_at(report, place), return_state=True)
        if not tracked.is_completed():
            get_run_logger().warning("%s: %s", why_not_logged(), tracked.message)
    return Scorecard(place, table, tuple(row.row_digest for row in flat_rows), tuple(reading))
