"""Which checkpoint can guide another; apart from what draws, whose keys are of its code."""

from __future__ import annotations

from ddim_core.checkpoints.conditioning import require_same_classes
from ddim_core.checkpoints.identity import weights_digest
from ddim_core.safe_files.weight_names import DECODER_FOLDERS
from ddim_core.samplers.families import family_of, trained
from tasks.checkpoints.open import CheckpointRecord
from tasks.checkpoints.scheduler import scheduler_of
from tasks.storage import store
from tasks.storage.artifact import ArtifactRef

ALIKE = ("resolution", "channels", "n_train", "prediction_type", "is_latent")


def require_guide(guide: CheckpointRecord, led: CheckpointRecord) -> None:
    """Makes sure that a checkpoint can guide another: that they predict the same of the same.

    Raises:
        ValueError: If it cannot; says in what they differ.
    """
    for record, whose in ((led, "the checkpoint"), (guide, "the guide")):
        if record.pipeline or record.with_prompts:
            raise ValueError(
                f"a guide is given, and {whose} {record.name} is told of a text, or draws by its "
                "pipeline's own call; guides are of networks that are told of classes or of nothing"
            )
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


def _trained_on(checkpoint: ArtifactRef) -> dict[str, object]:
    own = scheduler_of(checkpoint) or {}
    return {"family": family_of(own), **trained(own)}


def _decoder_of(checkpoint: ArtifactRef) -> list[str]:
    folder = store.get_folder(checkpoint)
    there = [folder / part for part in DECODER_FOLDERS if (folder / part).is_dir()]
    return [weights_digest(part) for part in there]
