"""Which checkpoint can guide another; apart from what draws, whose keys are of its code."""

from __future__ import annotations

from pathlib import Path

from ddim_core.checkpoints.conditioning import require_same_classes
from ddim_core.checkpoints.convert import source_digest
from ddim_core.checkpoints.decoder_files import is_one_network
from ddim_core.checkpoints.identity import weights_digest
from ddim_core.checkpoints.posthoc_ema import kept_in
from ddim_core.diffusion.specs import Weights
from ddim_core.pipelines.single_file import is_single_file
from ddim_core.safe_files.weight_names import DECODER_FOLDERS
from ddim_core.samplers.families import family_of, trained
from tasks.checkpoints.addresses import averaged, is_local, name_of
from tasks.checkpoints.convert import SingleFile, converted, files_of
from tasks.checkpoints.open import CheckpointRecord, open_checkpoint
from tasks.checkpoints.pipelines import is_pipeline
from tasks.checkpoints.scheduler import scheduler_of
from tasks.storage import store
from tasks.storage.artifact import ArtifactRef

OF_TEXT = (
    "a guide is given, and {} is told of a text, or draws by its pipeline's own call; guides are "
    "of networks that are told of classes or of nothing"
)
ALIKE = ("resolution", "channels", "n_train", "prediction_type", "is_latent")


def require_guide(guide: CheckpointRecord, led: CheckpointRecord) -> None:
    """Makes sure that a checkpoint can guide another: that they predict the same of the same.

    Raises:
        ValueError: If it cannot; says in what they differ.
    """
    for record, whose in ((led, "the checkpoint"), (guide, "the guide")):
        if record.pipeline or record.with_prompts:
            raise ValueError(OF_TEXT.format(f"{whose} {record.name}"))
    for name in ALIKE:
        mine, theirs = getattr(led, name), getattr(guide, name)
        if mine != theirs:
            raise ValueError(
                f"{name} is {mine} of the checkpoint and {theirs} of its guide {guide.name}; they "
                "must be the same"
            )
    require_same_classes(led.n_classes, guide.n_classes, guide.null_label)
    mine, theirs = (_trained_on(record.ref) for record in (led, guide))
    differ = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
    if differ:
        key = differ[0]
        raise ValueError(
            f"{key} is {mine.get(key)!s:.60} of the checkpoint's noise and {theirs.get(key)!s:.60} "
            f"of its guide {guide.name}; networks of one kind of noise guide each other"
        )
    if led.is_latent and _decoder_of(led.ref) != _decoder_of(guide.ref):
        raise ValueError(
            f"the guide {guide.name} draws latents of another autoencoder than the checkpoint"
        )


def require_guide_at(guide: str, led: str, weights: Weights, configuration: str) -> None:
    """The same, before anything is started, of checkpoints whose files lie on this machine; others
    are told once they are fetched.

    Raises:
        ValueError: As `require_guide`, or if one of them is no checkpoint.
    """
    theirs, mine = (_record_at(place, weights, configuration) for place in (guide, led))
    if theirs is not None and mine is not None:
        require_guide(theirs, mine)


def _record_at(place: str, weights: Weights, configuration: str) -> CheckpointRecord | None:
    """What is known of a checkpoint's files, converted without a task; None where they are not all
    here. Of an average, that of the first snapshot that it is made of: they are all alike."""
    name = name_of(place)
    if of := None if is_local(place) else averaged(place):
        place = str(next(iter(kept_in(Path(of.folder), of.kimg))))
    found: str | SingleFile = place
    if configuration and Path(place).is_file():
        if not (is_one_network(Path(place)) and Path(configuration).is_dir()):
            return None
        found = SingleFile(place, configuration)
    if not is_local(place) or is_single_file(Path(place)):
        return None
    if is_pipeline(Path(place)):
        raise ValueError(OF_TEXT.format(name))
    digest = source_digest(files_of(found))
    return open_checkpoint.fn(converted(digest, weights, found), name)


def _trained_on(checkpoint: ArtifactRef) -> dict[str, object]:
    own = scheduler_of(checkpoint) or {}
    return {"family": family_of(own), **trained(own)}


def _decoder_of(checkpoint: ArtifactRef) -> list[str]:
    folder = store.get_folder(checkpoint)
    there = [folder / part for part in DECODER_FOLDERS if (folder / part).is_dir()]
    return [weights_digest(part) for part in there]
