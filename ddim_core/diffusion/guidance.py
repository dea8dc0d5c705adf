"""Classifier-free guidance: a model that is told what to draw, made one that heeds it more."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ddim_core.diffusion.sampling import Denoiser, LabelledDenoiser

ROUNDING = 1e-6  # of a level that is told as a timestep, in float32


def guided(
    model: LabelledDenoiser,
    labels: Tensor,
    null_label: Tensor | int,
    scale: float,
    inside: Callable[[float], bool] | None = None,
    channels: int | None = None,
) -> Denoiser:
    """Turns a labelled model into one that follows its labels more (or less) closely.

        prediction = prediction_u + g (prediction_c - prediction_u)

    Source: classifier-free guidance, Ho and Salimans 2022 (arXiv:2207.12598), in the convention
    where g = 1 is no guidance (their w is g - 1); it holds for eps, x0 and v alike. Both halves
    are one doubled batch; at g = 1 (g = 0) only the conditional (unconditional) half is run. What a
    model predicts of a variance besides is that of the labels, as in DiT's `forward_with_cfg`.

    Args:
        model: Called as model(x, t, labels).
        labels: [batch, ...], one for each image.
        null_label: The label of "no label": a class number, or a tensor shaped like one label.
        scale: g.
        inside: Tells of a timestep whether there is guidance; elsewhere the conditional half alone
            is run. None: everywhere.
        channels: So many first channels are guided, the others are the conditional half's own, as
            in DiT's `forward_with_cfg`; None: all.
    """
    return _where(inside, _led(model, labels, null_label, scale, channels), _told(model, labels))


def autoguided(
    model: Denoiser,
    guide: Denoiser,
    scale: float,
    inside: Callable[[float], bool] | None = None,
    channels: int | None = None,
) -> Denoiser:
    """Turns a model into one that goes further away from what a worse one predicts.

        prediction = guide's + g (prediction - guide's)

    Source: autoguidance, Karras et al. 2024 (arXiv:2406.02507), where the guide is a smaller or
    less trained network told the same class; and EDM2 (arXiv:2312.02696), where it is told none.
    Its code guides the denoised images D, which is the same where both networks have one
    preconditioning. At g = 1 the model alone is run, at g = 0 the guide alone.

    Args:
        model: Called as model(x, t).
        guide: Predicts the same of the same inputs.
        scale, inside, channels: As of `guided`.
    """

    def led(x: Tensor, t: Tensor, /) -> Tensor:
        if scale == 0.0 and channels is None:
            return guide(x, t)
        return _further(guide(x, t), model(x, t), scale, channels or x.shape[1])

    return model if scale == 1.0 else _where(inside, led, model)


def _where(inside: Callable[[float], bool] | None, led: Denoiser, plain: Denoiser) -> Denoiser:
    if inside is None:
        return led

    def led_inside(x: Tensor, t: Tensor, /) -> Tensor:
        return led(x, t) if inside(float(t[0])) else plain(x, t)

    return led_inside


def _told(model: LabelledDenoiser, labels: Tensor) -> Denoiser:
    return lambda x, t: model(x, t, labels)


def _further(reference: Tensor, said: Tensor, scale: float, n: int) -> Tensor:
    """What is said, guided away from a reference on its first n channels."""
    if n >= said.shape[1]:
        return torch.lerp(reference, said, scale)
    return torch.cat([torch.lerp(reference[:, :n], said[:, :n], scale), said[:, n:]], dim=1)


def within(interval: tuple[float, float], level: float) -> bool:
    """Tells whether a noise level lies in an interval, both ends with, to rounding.

    Source: Kynkaanniemi et al. 2024 (arXiv:2404.07724), where the lower end is not in it; REPA's
    sampler has both.
    """
    low, high = interval
    return low * (1.0 - ROUNDING) <= level <= high * (1.0 + ROUNDING)


def _led(
    model: LabelledDenoiser,
    labels: Tensor,
    null_label: Tensor | int,
    scale: float,
    channels: int | None,
) -> Denoiser:
    null = torch.as_tensor(null_label, dtype=labels.dtype, device=labels.device).expand_as(labels)
    if scale == 1.0 or (scale == 0.0 and channels is None):
        chosen = labels if scale == 1.0 else null
        return _told(model, chosen)
    both = torch.cat([null, labels])

    def guided_model(x: Tensor, t: Tensor, /) -> Tensor:
        unlabelled, labelled = model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return _further(unlabelled, labelled, scale, channels or x.shape[1])

    return guided_model
