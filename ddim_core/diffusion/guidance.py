"""Classifier-free guidance: a model that is told what to draw, made one that heeds it more."""

from __future__ import annotations

import torch
from torch import Tensor

from ddim_core.diffusion.sampling import Denoiser, LabelledDenoiser


def guided(
    model: LabelledDenoiser, labels: Tensor, null_label: Tensor | int, scale: float
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
    """
    null = torch.as_tensor(null_label, dtype=labels.dtype, device=labels.device).expand_as(labels)
    if scale in (0.0, 1.0):
        chosen = labels if scale == 1.0 else null
        return lambda x, t: model(x, t, chosen)
    both = torch.cat([null, labels])

    def guided_model(x: Tensor, t: Tensor, /) -> Tensor:
        unlabelled, labelled = model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        if labelled.shape == x.shape:
            return torch.lerp(unlabelled, labelled, scale)
        n = x.shape[1]
        led = torch.lerp(unlabelled[:, :n], labelled[:, :n], scale)
        return torch.cat([led, labelled[:, n:]], dim=1)

    return guided_model
