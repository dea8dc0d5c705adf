"""What all cells of a grid share: checkpoint, extractor, reference features, floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddim_core.checkpoints.conditioning import require_guidable
from ddim_core.diffusion.specs import GridCell, NoiseSpec, SchedulerSpec
from ddim_core.image_scores.registry import choices_of, require_no_prompts_needed
from ddim_core.images.moments import is_moments
from ddim_core.images.sources.source import dataset_name
from ddim_core.safe_files.weight_names import TENSORS
from ddim_core.samplers.catalogue import OWN
from ddim_core.scores.cell_score import CellScore
from flows.early.grids import refuse_samplers
from flows.grid.extractor import held_out_of, submit_extractor
from flows.grid.toy_training import submit_training
from flows.requests.grid import GridRequest
from flows.requests.models import training_split
from flows.requests.samplers.cells import Sampled
from flows.requests.samplers.choice import LEAST_IMAGES
from flows.run.runners import on_device
from tasks.cells.embed import FeatureShard, embed_images
from tasks.cells.extractor import StoredExtractor, ready_extractor
from tasks.cells.reference import known_reference
from tasks.cells.score import score_cell
from tasks.cells.settings import require_fit
from tasks.checkpoints.addresses import averaged, name_of
from tasks.checkpoints.loras import StoredLora, store_lora
from tasks.checkpoints.open import (
    CheckpointRecord,
    import_checkpoint,
    lint_schedule,
    open_checkpoint,
)
from tasks.checkpoints.scheduler import own_scheduler, scheduler_of
from tasks.image_scores.ready import StoredScore, ready_image_score
from tasks.images.grid_prompts import cut_prompts, prompts_for
from tasks.images.prepare import PreparedImages, content_of, notes_on, prepare_data
from tasks.sampling.asked_prompts import texts_of
from tasks.sampling.conditions import conditions_of, store_conditions
from tasks.sampling.guides import require_guide
from tasks.sampling.pipeline import Laid, by_pipeline, laid_over, libraries_of, require_own_place
from tasks.sampling.trajectory import require_x0
from tasks.storage.artifact import ArtifactRef
from tasks.storage.naming import named

Conditions = Mapping[Laid, ArtifactRef]


@dataclass(frozen=True)
class GridInputs:
    """All that the cells of a grid share.

    Attributes:
        floor: The score of held-out real images, where there are any.
        notes: What is to be known of the data set, for people.
        findings: What the schedule linter says of the cells, and what was assumed.
        conditions: What prompts are encoded to for a pipeline's own call, by the LoRAs over it.
        loras: The LoRA files that lie over it.
        image_scores: What judges the images one by one.
        texts: The stored prompts that the images are drawn for, as text; None where there is none.
        n_prompts: How many they are, as text or encoded.
    """

    checkpoint: CheckpointRecord
    cells: list[GridCell]
    conditions: Conditions
    reference_images: PreparedImages
    reference: FeatureShard
    extractor: StoredExtractor
    floor: CellScore | None
    notes: list[str]
    findings: list[str]
    loras: tuple[StoredLora, ...] = ()
    image_scores: tuple[StoredScore, ...] = ()
    texts: ArtifactRef | None = None
    n_prompts: int | None = None


def prepare(request: GridRequest) -> GridInputs:
    """Makes what all cells share: checkpoint, extractor, reference features, floor.

    The toy model and the extractor are trained side by side.
    """
    real = request.real
    content = content_of(real.dataset, real.spec)
    training = None
    loras: tuple[StoredLora, ...] = ()
    if request.model.checkpoint:
        model = request.model
        imported = import_checkpoint(model.checkpoint, model.weights, model.configuration)
        checkpoint = open_checkpoint(imported, name_of(model.checkpoint), real.resolution)
        checkpoint = _with_guide(request, checkpoint)
        resolution: int | None = checkpoint.resolution
        request.require_trainable(checkpoint.resolution)
        # S > T, and a sampler that does not fit, are found here, before anything is trained.
        loras = tuple(store_lora(text) for text in request.model.lora)
        wanted = _cells(request, checkpoint, loras)
        require_fit(wanted, checkpoint.n_train, checkpoint.ref)
        require_x0(request.report.trajectories, wanted, scheduler_of(checkpoint.ref))
    else:
        refuse_samplers(request)
        with on_device(request.machine.runner, request.machine.device):
            training = submit_training(request.training)
        resolution = real.resolution

    def data(split: str) -> PreparedImages:
        """A split in the channels of the checkpoint, which a toy takes from its training images."""
        channels = None
        if request.model.checkpoint:
            channels = checkpoint.channels
        elif split != (fitted := training_split(real.dataset)):
            channels = data(fitted).channels
        return prepare_data(content, split, resolution, real.dataset, channels, real.spec)

    if is_moments(real.dataset):
        return _against_moments(request, checkpoint, loras, content)
    reference_images = data(real.split)
    if reference_images.n < LEAST_IMAGES:
        raise ValueError(
            f"{name_of(real.dataset)} {real.split} holds {reference_images.n} image; a "
            f"reference needs at least {LEAST_IMAGES}"
        )
    prompts: str | None = None
    conditions: Conditions = {}
    if request.model.checkpoint:
        prompts, conditions = _prompts(request, checkpoint, loras, reference_images)
    texts, n_prompts = texts_of(prompts, request.model.prompts.endswith(TENSORS))
    image_scores = _image_scores(request, texts is not None)
    held_out_split, held_out = request.real.held_out_split(), held_out_of(request, data)
    extractor_future = submit_extractor(request, data, held_out)
    if training is not None:
        name = f"toy-{Path(dataset_name(real.dataset)).stem}{request.toy.kind}"
        checkpoint = open_checkpoint(training.result(), name)
    if checkpoint.channels != reference_images.channels:
        raise ValueError(
            f"the checkpoint makes images of {checkpoint.channels} channels and the data set "
            f"has {reference_images.channels}; they must be equal"
        )
    extractor, execution = extractor_future.result(), request.machine.execution
    name = name_of(real.dataset)
    embed_real = named(embed_images, f"features of real images {name} {real.split}")
    how = execution, request.machine.arithmetic_for(request.grid.dtype)
    with on_device(request.machine.runner, request.machine.device):
        reference = embed_real.submit(reference_images, extractor, *how).result()
    floor = None
    if held_out:
        embed_real = named(embed_images, f"features of real images {name} {held_out_split}")
        score_real = named(score_cell, f"score of real images {name} {held_out_split}")
        with on_device(request.machine.runner, request.machine.device):
            features = embed_real.submit(held_out, extractor, *how).result()
        by = request.scored_by(held_out.n)
        with on_device(request.machine.runner, by[0].device):
            floor = score_real.submit([features], reference, extractor, *by).result().score
    cells, findings = _looked_at(request, checkpoint, loras, prompts, conditions)
    notes = notes_on(reference_images, *([held_out] if held_out else []))
    return GridInputs(
        checkpoint=checkpoint,
        cells=cells,
        conditions=conditions,
        reference_images=reference_images,
        reference=reference,
        extractor=extractor,
        floor=floor,
        notes=notes,
        findings=findings,
        loras=loras,
        image_scores=image_scores,
        texts=texts,
        n_prompts=n_prompts,
    )


def _with_guide(request: GridRequest, checkpoint: CheckpointRecord) -> CheckpointRecord:
    """A checkpoint, with the one that guides it."""
    model = request.model
    if not model.guide:
        return checkpoint
    of_files = Path(model.guide).is_file() or averaged(model.guide)
    described = model.configuration if of_files else ""
    guide = open_checkpoint(
        import_checkpoint(model.guide, model.weights, described), name_of(model.guide)
    )
    require_guide(guide, checkpoint)
    return replace(checkpoint, guide=guide.name, guide_ref=guide.ref)


def _image_scores(request: GridRequest, with_texts: bool) -> tuple[StoredScore, ...]:
    """What judges the images one by one, in the store; whether these have prompts as text."""
    choices = choices_of(request.scores.image_scores)
    if not with_texts:
        require_no_prompts_needed(choices, name_of(request.model.checkpoint) or "the toy model")
    return tuple(
        named(ready_image_score, f"image score {choice.name}")(choice) for choice in choices
    )


def _against_moments(
    request: GridRequest,
    checkpoint: CheckpointRecord,
    loras: tuple[StoredLora, ...],
    content: str,
) -> GridInputs:
    """The same where the reference is known by its statistics alone: no floor and no matrix."""
    location, choice = request.real.dataset, request.extractor()
    if checkpoint.with_prompts and not request.model.prompts:
        raise ValueError(f"{name_of(location)} has no captions to draw for; give prompts")
    extractor = named(ready_extractor, f"extractor {choice.label}")(choice)
    made = named(known_reference, f"statistics of {name_of(location)}")
    known = made(content, location, extractor, checkpoint.resolution, checkpoint.channels)
    prompts, conditions = _prompts(request, checkpoint, loras, known.images)
    cells, findings = _looked_at(request, checkpoint, loras, prompts, conditions)
    return GridInputs(
        checkpoint=checkpoint,
        cells=cells,
        conditions=conditions,
        reference_images=known.images,
        reference=known.features,
        extractor=extractor,
        floor=None,
        notes=notes_on(known.images),
        findings=findings,
        loras=loras,
    )


def _looked_at(
    request: GridRequest,
    checkpoint: CheckpointRecord,
    loras: tuple[StoredLora, ...],
    prompts: str | None,
    conditions: Conditions,
) -> tuple[list[GridCell], list[str]]:
    """The cells, and what is found out about them before anything is drawn."""
    cells = _cells(request, checkpoint, loras, prompts)
    findings = [*checkpoint.assumed, *lint_schedule(checkpoint.ref, cells)]
    if checkpoint.guide_ref == checkpoint.ref:
        findings.append("The guide is the checkpoint itself by content: guidance changes nothing.")
    if prompts and checkpoint.is_native and (cut := cut_prompts(checkpoint.ref, prompts)):
        findings.append(cut)
    _try_pipeline(request, cells, checkpoint.ref, conditions)
    return cells, findings


def _prompts(
    request: GridRequest,
    checkpoint: CheckpointRecord,
    loras: Sequence[StoredLora],
    reference: PreparedImages,
) -> tuple[str | None, Conditions]:
    """The digest of what a checkpoint's images are drawn for, and that encoded for its pipeline."""
    location = request.model.prompts
    drawn = [cell for cell in _cells(request, checkpoint, loras) if by_pipeline(cell)]
    laid = {laid_over(cell): cell for cell in drawn}
    if checkpoint.pipeline and checkpoint.with_prompts and location.endswith(TENSORS):
        given = store_conditions(location, checkpoint.ref)
        return given.artifact, dict.fromkeys(laid, given)
    prompts = prompts_for(checkpoint.with_prompts, location, reference)
    if prompts is None:
        return None, {}
    told, how = (checkpoint.ref, prompts), (request.machine.execution, request.grid.n_images)
    with on_device(request.machine.runner, request.machine.device):
        encoded = {
            over: conditions_of(*told, over, libraries_of(c), c.card, c.dtype, *how)
            for over, c in laid.items()
        }
    return prompts, {over: future.result() for over, future in encoded.items()}


def _try_pipeline(
    request: GridRequest, cells: list[GridCell], checkpoint: ArtifactRef, conditions: Conditions
) -> None:
    """Tries each sampler of a pipeline on a few steps, before anything is drawn."""
    by_line = {cell.sampler.line: cell for cell in cells if by_pipeline(cell)}
    for line, cell in by_line.items():
        tried = named(require_own_place, f"place in the batch {line}")
        told = cell, checkpoint, request.machine.execution, conditions.get(laid_over(cell))
        with on_device(request.machine.runner, request.machine.device):
            tried.submit(*told).result()


def _cells(
    request: GridRequest,
    checkpoint: CheckpointRecord,
    loras: Sequence[StoredLora],
    prompts: str | None = None,
) -> list[GridCell]:
    cells = request.cells(sampled(request, checkpoint, loras), prompts)
    changed = request.model.noise_schedule or request.model.prediction_type
    if changed and any(by_pipeline(cell) for cell in cells):
        raise ValueError(
            f"{changed!r} is asked for instead of the checkpoint's own, and a "
            f"{checkpoint.pipeline} draws with its own settings; leave it out, or take ddim alone"
        )
    if not (checkpoint.with_prompts or checkpoint.guide):  # which there is to be guided away from
        for cell in cells:
            require_guidable(
                checkpoint.n_classes, checkpoint.null_label, cell.sampler.guidance_scale
            )
    return cells


def sampled(
    request: GridRequest, checkpoint: CheckpointRecord, loras: Sequence[StoredLora] = ()
) -> Sampled:
    """What a checkpoint says of how it can be sampled; with LoRAs over it by its pipeline alone."""
    if loras and not checkpoint.pipeline:
        raise ValueError(f"lora is {loras[0].name!r}; only pipelines told of a text take LoRAs")
    known = Sampled(
        checkpoint.n_train,
        checkpoint.prediction_type,
        checkpoint.is_latent,
        checkpoint.is_native and not loras,
        checkpoint.pipeline,
        request.machine.batch_at(checkpoint.resolution),
        tuple((lora.artifact, lora.scale) for lora in loras),
        card=request.machine.card_at(checkpoint.resolution),
        guide=checkpoint.guide_ref.artifact if checkpoint.guide_ref else None,
        resolution=checkpoint.asked_resolution,
    )
    return replace(known, scheduler=_scheduler(request, known, checkpoint.ref))


def _scheduler(
    request: GridRequest, known: Sampled, checkpoint: ArtifactRef | None
) -> Mapping[str, Any]:
    """The configuration of a checkpoint's own scheduler, as its cells depart from it."""
    asked = request.model.prediction_type or known.prediction_type
    kind: Any = request.model.noise_schedule
    noise = NoiseSpec(kind, known.n_train) if kind else None
    spec = SchedulerSpec(OWN, 1, prediction_type=asked, pipeline=known.pipeline)
    return own_scheduler(GridCell(spec, noise), checkpoint)
