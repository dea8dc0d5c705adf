"""The predictor and corrector of variance-exploding models, which have no plain step.

Source: Song et al. 2021 (arXiv:2011.13456), algorithm 4, as `ScoreSdeVePipeline` of diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddim_core.diffusion.sampling import Denoiser


def predict_and_correct(
    model: Denoiser, scheduler: Any, x_T: Tensor, streams: Sequence[torch.Generator]
) -> tuple[Tensor, int]:
    """Draws images by `ScoreSdeVeScheduler`: some corrector steps, then the predictor, each step.

    The corrector's step size goes by norms, of which diffusers takes the mean over the batch. Here
    each image is corrected alone, as in a batch of one: its bits are its own.

    Args:
        model: Predicts the score, asked at the noise level itself (float32 [batch]).
        scheduler: Made ready by `set_steps`.
        x_T: Standard normal noise [batch, ...].
        streams: The images' own streams.

    Returns:
        The images without the last step's noise, in the network's own range ([0, 1] for NCSN++),
        and the number of network evaluations.
    """
    x = x_T * scheduler.init_noise_sigma
    mean, n_evaluations = x, 0
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=True):
        level = sigma.to(x.device).expand(len(x))
        for _ in range(scheduler.config.correct_steps):
            said = model(x, level)
            rows = [
                scheduler.step_correct(
                    said[i : i + 1], x[i : i + 1], generator=stream, return_dict=False
                )[0]
                for i, stream in enumerate(streams)
            ]
            x = torch.cat(rows)
        said = model(x, level)
        x, mean = scheduler.step_pred(said, t, x, generator=list(streams), return_dict=False)
        n_evaluations += 1 + scheduler.config.correct_steps
    return mean, n_evaluations
