"""A checkpoint as a sampler needs it: told the classes of the images, and guided."""

from __future__ import annotations

from collections.abc import Sequence

from ddim_core.checkpoint import Checkpoint
from ddim_core.labels import asked_labels
from ddim_core.sampling import Denoiser, guided


def conditioned(
    checkpoint: Checkpoint, indices: Sequence[int], guidance_scale: float, device: str = "cpu"
) -> Denoiser:
    """The checkpoint's network as a sampler needs it for these images: with labels and guidance.

    Raises:
        ValueError: If guidance is asked of a network that has no class to leave out.
    """
    require_guidable(checkpoint.n_classes, checkpoint.null_label, guidance_scale)
    if checkpoint.n_classes is None:
        return checkpoint.model
    labels = asked_labels(indices, checkpoint.n_classes).to(device)
    # Without a null label the scale is 1, which never looks at it.
    null_label = 0 if checkpoint.null_label is None else checkpoint.null_label
    return guided(checkpoint.model, labels, null_label, guidance_scale)


def require_guidable(n_classes: int | None, null_label: int | None, scale: float) -> None:
    """Makes sure that a checkpoint can be guided by so much.

    Raises:
        ValueError: If it cannot.
    """
    if scale == 1.0 or null_label is not None:
        return
    why = "is unconditional" if n_classes is None else "has no label for an unknown class"
    raise ValueError(f"guidance is {scale:g}; the checkpoint {why}, so it must be 1 (none)")
