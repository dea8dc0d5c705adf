"""A checkpoint as a sampler needs it: told the classes of the images, and guided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ddim_core.checkpoints.checkpoint import Checkpoint
from ddim_core.diffusion.guidance import guided
from ddim_core.diffusion.labels import asked_labels
from ddim_core.diffusion.sampling import Denoiser, LabelledDenoiser


def conditioned(
    checkpoint: Checkpoint,
    indices: Sequence[int],
    guidance_scale: float,
    device: str = "cpu",
    prompts: Sequence[str] = (),
    *,
    network: LabelledDenoiser | None = None,
    inside: Callable[[float], bool] | None = None,
    channels: int | None = None,
) -> Denoiser:
    """The checkpoint's network as a sampler needs it for these images: with labels and guidance.

    A network that is told of a text draws image k for prompt k mod n; guidance compares with the
    empty prompt.

    Args:
        checkpoint: Whose `model` is asked.
        indices: Of the images.
        guidance_scale: g of `guided`.
        device: Where labels go.
        prompts: Of the data set.
        network: What is asked in place of `model`, such as its `whole`.
        inside, channels: Where, and on which channels, there is guidance; of `guided`.

    Raises:
        ValueError: If guidance is asked of a network that has no class to leave out, or prompts
            are missing or not wanted.
    """
    require_prompts(checkpoint.prompts is not None, len(prompts))
    asked_of: Any = checkpoint.model if network is None else network
    if checkpoint.prompts is not None:
        asked = checkpoint.prompts([prompts[index % len(prompts)] for index in indices])
        empty = checkpoint.prompts([""])[0]
        return guided(asked_of, asked, empty, guidance_scale, inside, channels)
    require_guidable(checkpoint.n_classes, checkpoint.null_label, guidance_scale)
    if checkpoint.n_classes is None:
        return asked_of  # type: ignore[no-any-return]
    labels = asked_labels(indices, checkpoint.n_classes).to(device)
    # Without a null label the scale is 1, which never looks at it.
    null_label = 0 if checkpoint.null_label is None else checkpoint.null_label
    return guided(asked_of, labels, null_label, guidance_scale, inside, channels)


def require_guidable(n_classes: int | None, null_label: int | None, scale: float) -> None:
    """Makes sure that a checkpoint can be guided by so much.

    Raises:
        ValueError: If it cannot.
    """
    if scale == 1.0 or null_label is not None:
        return
    why = "is unconditional" if n_classes is None else "has no label for an unknown class"
    raise ValueError(
        f"guidance is {scale:g}; the checkpoint {why}, so it must be 1 (none); guidance by another "
        "network, as EDM2's and autoguidance, is not done"
    )


def require_prompts(with_prompts: bool, n_prompts: int) -> None:
    """Makes sure that a checkpoint that is told of a text has prompts, and that no other has.

    Raises:
        ValueError: If not.
    """
    if with_prompts and not n_prompts:
        raise ValueError(
            "the checkpoint draws images of a text and there are no prompts; give a file with one "
            "a line, or a data set with captions"
        )
    if n_prompts and not with_prompts:
        raise ValueError(f"{n_prompts} prompts are given; the checkpoint is told of no text")
