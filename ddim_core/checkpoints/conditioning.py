"""A checkpoint as a sampler needs it: told the classes of the images, and guided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ddim_core.checkpoints.checkpoint import Checkpoint
from ddim_core.diffusion.guidance import autoguided, guided
from ddim_core.diffusion.labels import asked_labels
from ddim_core.diffusion.prediction import LastGuess
from ddim_core.diffusion.sampling import Denoiser, LabelledDenoiser
from ddim_core.diffusion.schedule import NoiseSchedule


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
    guide: Denoiser | None = None,
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
        guide: Another network, which guides in place of no class (`as_guide`).

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
    if guide is not None:
        told = _told(asked_of, checkpoint, indices, device)
        return autoguided(told, guide, guidance_scale, inside, channels)
    require_guidable(checkpoint.n_classes, checkpoint.null_label, guidance_scale)
    if checkpoint.n_classes is None:
        return asked_of  # type: ignore[no-any-return]
    labels = asked_labels(indices, checkpoint.n_classes).to(device)
    # Without a null label the scale is 1, which never looks at it.
    null_label = 0 if checkpoint.null_label is None else checkpoint.null_label
    return guided(asked_of, labels, null_label, guidance_scale, inside, channels)


def as_guide(
    guide: Checkpoint,
    led: Checkpoint,
    indices: Sequence[int],
    device: str = "cpu",
    network: LabelledDenoiser | None = None,
) -> Denoiser:
    """Returns a checkpoint's network as the guide of another: told the same classes, or none where
    either knows none; `network` is asked in place of its `model`.

    Raises:
        ValueError: If it is told of other classes, or of classes alone, and the other of none.
    """
    asked_of: Any = guide.model if network is None else network
    require_same_classes(led.n_classes, guide.n_classes, guide.null_label)
    if led.n_classes is None and guide.n_classes is not None:
        none = torch.full((len(indices),), guide.null_label or 0, device=device)
        return lambda x, t: asked_of(x, t, none)
    return _told(asked_of, guide, indices, device)


def require_same_classes(led: int | None, guide: int | None, null_label: int | None) -> None:
    """Makes sure that a network of so many classes can be guided by one of so many.

    Args:
        led, guide: Their classes; None of an unconditional one.
        null_label: The guide's label for no class.

    Raises:
        ValueError: If it cannot.
    """
    if guide is None or guide == led or (led is None and null_label is not None):
        return
    knows = "no classes" if led is None else f"{led} classes"
    raise ValueError(
        f"the guide knows {guide} classes and the checkpoint {knows}; they must be the same, or "
        "the guide's none"
    )


def for_one_run(
    checkpoint: Checkpoint,
    schedule: NoiseSchedule | None,
    prediction_type: Any,
    network: LabelledDenoiser | None = None,
) -> Any:
    """Returns a checkpoint's network for one run of a sampler: one that was trained on its own last
    guess is told it, and begins without.

    Args:
        checkpoint: Whose `model` is asked.
        schedule: Of the run; of a network without one, which has no guesses, None.
        prediction_type: What it predicts.
        network: What is asked in place of `model`, such as its `whole`.
    """
    asked_of: Any = checkpoint.model if network is None else network
    if schedule is None or not checkpoint.model.unet.config.get("self_condition"):
        return asked_of
    return LastGuess(asked_of, schedule, prediction_type)


def _told(network: Any, checkpoint: Checkpoint, indices: Sequence[int], device: str) -> Denoiser:
    """A network told the classes of images, if it knows any."""
    if checkpoint.n_classes is None:
        return network  # type: ignore[no-any-return]
    labels = asked_labels(indices, checkpoint.n_classes).to(device)
    return lambda x, t: network(x, t, labels)


def require_guidable(n_classes: int | None, null_label: int | None, scale: float) -> None:
    """Makes sure that a checkpoint can be guided by so much.

    Raises:
        ValueError: If it cannot.
    """
    if scale == 1.0 or null_label is not None:
        return
    why = "is unconditional" if n_classes is None else "has no label for an unknown class"
    raise ValueError(
        f"guidance is {scale:g}; the checkpoint {why}, so it must be 1 (none), or another network "
        "guide it (--guide, as EDM2's autoguidance)"
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
