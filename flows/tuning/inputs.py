"""What all settings that are tuned share: the checkpoint, the cells without lists, the prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ddim_core.decisions.tuned_lists import lists_before
from ddim_core.diffusion.specs import GridCell
from ddim_core.images.moments import is_moments
from ddim_core.images.sources.source import dataset_name
from ddim_core.safe_files.weight_names import TENSORS
from flows.early.tunings import refuse_tuning
from flows.grid.extractor import held_out_of, submit_extractor
from flows.grid.inputs import prepare, sampled
from flows.grid.toy_training import submit_training
from flows.requests.grid import GridRequest
from flows.requests.images import PREVIOUS
from flows.requests.samplers.choice import SamplerChoice
from flows.requests.tuning import ENDS, FAMILY, FID, TuneRequest
from flows.run.runners import on_device
from tasks.cells.embed import FeatureShard, embed_images
from tasks.cells.extractor import ready_extractor
from tasks.cells.reference import known_reference
from tasks.cells.settings import require_fit
from tasks.checkpoints.addresses import name_of
from tasks.checkpoints.identity import weights_of
from tasks.checkpoints.loras import StoredLora, store_lora
from tasks.checkpoints.open import CheckpointRecord, import_checkpoint, open_checkpoint
from tasks.images.grid_prompts import prompts_for
from tasks.images.prepare import PreparedImages, content_of, prepare_data
from tasks.sampling.conditions import conditions_of, store_conditions
from tasks.sampling.guidance import guided_between, level_at
from tasks.sampling.pipeline import by_pipeline, laid_over, libraries_of
from tasks.storage.artifact import ArtifactRef
from tasks.storage.cell_rows import read_rows
from tasks.storage.naming import named
from tasks.tuning.asked import settings_to_tune
from tasks.tuning.prompts import deal, deal_conditions
from tasks.tuning.runs import visits_of

Both = tuple[ArtifactRef | None, ArtifactRef | None]


@dataclass(frozen=True)
class TuneInputs:
    """What all settings share.

    Attributes:
        checkpoint: It.
        settings: Cells without lists, each with its network calls.
        n_images: To tune on, and as many fresh ones.
        conditions: Prompts to tune on and fresh ones, encoded for the pipeline's own call.
        fresh_prompts: Digest of the fresh ones, where the network itself is told of them.
        scored_prompts: File of those that the grid is drawn for; empty takes the request's.
        extractor: Distances, or FIDs, are taken in its features; None takes pixels, or latents.
        reference: Features, or statistics, of the real images that FIDs are taken to.
        known: Lists found elsewhere, to look at too.
        notes: What is to be known, for people.
    """

    checkpoint: CheckpointRecord
    settings: list[tuple[GridCell, int]]
    n_images: int
    conditions: Both
    fresh_prompts: str | None
    scored_prompts: str
    extractor: ArtifactRef | None
    reference: FeatureShard | None
    known: tuple[str, ...]
    notes: tuple[str, ...]


def prepare_tuning(request: TuneRequest) -> TuneInputs:
    """Opens or trains the checkpoint, refuses what cannot be tuned of it, deals out its prompts."""
    refuse_tuning(request)
    model, grid = request.model, request.grid(())
    loras: tuple[StoredLora, ...] = ()
    if model.checkpoint:
        imported = import_checkpoint(model.checkpoint, model.weights, model.configuration)
        asked = request.real.resolution
        checkpoint = open_checkpoint(imported, name_of(model.checkpoint), asked)
        loras = tuple(store_lora(text) for text in model.lora)
    else:
        training = submit_training(grid.training)
        name = f"toy-{Path(dataset_name(request.real.dataset)).stem}{request.toy.kind}"
        checkpoint = open_checkpoint(training.result(), name)
    bases = _bases(request, grid, checkpoint, loras)
    if request.searches_interval:  # refused as one that is given
        guided = next(base for base in bases if base.sampler.guidance_scale != 1.0)
        visits_of(guided_between(guided, (0.0, 1.0)), checkpoint.ref)
        level_at(guided, checkpoint.ref)
    settings = [
        found
        for base in bases
        for found in settings_to_tune(base, checkpoint.ref, request.samplers, request.tune.calls)
    ]
    stock = sampled(grid, checkpoint, loras)
    require_fit([cell for cell, _ in settings], stock.n_train, checkpoint.ref)
    if request.proof.n_images:  # stock samplers that do not fit
        require_fit(grid.cells(stock), stock.n_train, checkpoint.ref)
    tuning, fresh, conditions, scored, notes = _prompts(request, checkpoint, bases[0])
    if request.proof.n_images:  # what the proof needs is made, or refused, before the search
        prepare(request.grid((), prompts=scored))
    told = [(replace(cell, prompts=tuning), calls) for cell, calls in settings]
    extractor, reference = _seen_by(request, grid, checkpoint)
    known, found = _known(request, checkpoint)
    if request.tune.search == FAMILY:
        found += ("Of each list two ends and rho were searched alone; --search list may find a "
                  "nearer one.",)  # fmt: skip
    if request.interval:
        low, high = request.interval
        found += (f"Guidance is at noise levels from {low:g} to {high:g} alone, in the long run "
                  "too.",)  # fmt: skip
    n_images = request.tuning_images(reference.d if reference else None)
    return TuneInputs(
        checkpoint, told, n_images, conditions, fresh, scored, extractor, reference, known,
        (*notes, *found),
    )  # fmt: skip


def _known(
    request: TuneRequest, checkpoint: CheckpointRecord
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Lists found elsewhere, and what is to be said of where `previous` ones come from."""
    named = tuple(text for text in request.known if text != PREVIOUS)
    if PREVIOUS not in request.known:
        return named, ()
    before = lists_before(read_rows().rows, weights_of(checkpoint.ref))
    if not before.lists:
        return named, ("No other checkpoint has a cell with a list.",)
    of = f"{before.checkpoint}, the last other checkpoint that was scored with any"
    note = f"Lists of {of}, are looked at."
    return tuple(dict.fromkeys([*named, *before.lists])), (note,)


def _seen_by(
    request: TuneRequest, grid: GridRequest, checkpoint: CheckpointRecord
) -> tuple[ArtifactRef | None, FeatureShard | None]:
    """The extractor that the grid scores with, where runs are measured in its features; and where
    that is by FID, the features of the real images, or their statistics."""
    real, by_fid = request.real, request.tune.distance == FID
    if request.tune.distance == ENDS:
        return None, None
    content = content_of(real.dataset, real.spec)
    if is_moments(real.dataset):
        choice = grid.extractor()
        stored = named(ready_extractor, f"extractor {choice.label}")(choice)
        size = checkpoint.resolution, checkpoint.channels
        made = named(known_reference, f"statistics of {dataset_name(real.dataset)}")
        return stored, made(content, real.dataset, stored, *size).features if by_fid else None

    def data(split: str) -> PreparedImages:
        return prepare_data(
            content, split, checkpoint.resolution, real.dataset, checkpoint.channels, real.spec
        )

    stored = submit_extractor(grid, data, held_out_of(grid, data)).result()
    if not by_fid:
        return stored, None
    embed = named(
        embed_images, f"features of real images {dataset_name(real.dataset)} {real.split}"
    )
    how = request.machine.execution, request.machine.arithmetic_for(request.tune.dtype)
    with on_device(request.machine.runner, request.machine.device):
        return stored, embed.submit(data(real.split), stored, *how).result()


def _bases(
    request: TuneRequest,
    grid: GridRequest,
    checkpoint: CheckpointRecord,
    loras: tuple[StoredLora, ...],
) -> list[GridCell]:
    """A cell for each scale of guidance, by a scheduler of diffusers."""
    one = replace(
        grid, grid=SamplerChoice(steps=(1,), samplers=("own",), etas=(0.0,), sigma_hat=False,
                                 guidance=request.tune.guidance, dtype=request.tune.dtype,
                                 guidance_interval=request.interval,
                                 seed=request.tune.seed),
    )  # fmt: skip
    return one.cells(sampled(one, checkpoint, loras))


def _prompts(
    request: TuneRequest, checkpoint: CheckpointRecord, base: GridCell
) -> tuple[str | None, str | None, Both, str, tuple[str, ...]]:
    """Digests of the prompts to tune on and of fresh ones, both encoded, the file of the others."""
    location, other = request.model.prompts, request.tune.tuning_prompts
    if checkpoint.pipeline and checkpoint.with_prompts and location.endswith(TENSORS):
        halves = deal_conditions(store_conditions(other or location, checkpoint.ref))
        note = () if other else (
            "The prompts came encoded, so that the grid scores those that were tuned on too, with "
            "other noise; give tuning_prompts for others.",
        )  # fmt: skip
        return halves[0].artifact, halves[1].artifact, halves, "", note
    if not checkpoint.with_prompts:
        prompts_for(False, location or other, checkpoint.ref)  # refuses prompts that nobody reads
        return None, None, (None, None), "", ()
    stored = _stored(request, checkpoint, location)
    given = prompts_for(True, other, checkpoint.ref) if other else None
    dealt = deal(stored, given)
    notes = (dealt.note,) if dealt.note else ()
    conditions: Both = (None, None)
    if by_pipeline(base):
        how = laid_over(base), libraries_of(base), base.card, base.dtype, request.machine.execution
        with on_device(request.machine.runner, request.machine.device):
            both = [conditions_of(checkpoint.ref, of, *how) for of in (dealt.tuning, dealt.fresh)]
        conditions = both[0].result(), both[1].result()
    return dealt.tuning, dealt.fresh, conditions, dealt.scored, notes


def _stored(request: TuneRequest, checkpoint: CheckpointRecord, location: str) -> str:
    """The digest of the prompts that were given, or of the data set's captions."""
    real = request.real
    reference = checkpoint.ref
    if not location:
        reference = prepare_data(
            content_of(real.dataset, real.spec), real.split, checkpoint.resolution, real.dataset,
            checkpoint.channels, real.spec,
        )  # fmt: skip
    stored = prompts_for(True, location, reference)
    assert stored is not None
    return stored
