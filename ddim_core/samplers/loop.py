"""The loop that draws from a bare network with a scheduler of diffusers, and the flow's way back.

`DDPMPipeline` never calls `scale_model_input` nor multiplies by `init_noise_sigma`, so that half of
diffusers' schedulers draw garbage with it: here the loop is ours and the arithmetic is theirs.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ddim_core.common.foreign import Keywords
from ddim_core.diffusion.sampling import Denoiser
from ddim_core.samplers.scheduler import asks_at, learns_variance, takes_eta
from ddim_core.samplers.ve import predict_and_correct

FLOW_EULER = "FlowMatchEulerDiscreteScheduler"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a run made.

    Attributes:
        x: The images [batch, ...] (or their noise, where they were encoded).
        n_evaluations: How often the network was asked about the batch: Heun asks twice a step, but
            once in the last one. Guidance within the model counts for nothing here.
    """

    x: Tensor
    n_evaluations: int


def draw(
    model: Denoiser,
    scheduler: Any,
    x_T: Tensor,
    streams: Sequence[torch.Generator] = (),
    eta: float = 0.0,
) -> Drawn:
    """Draws images from noise with a scheduler of diffusers, as its pipelines should.

        x = init_noise_sigma x_T;   for each t:  x = step(model(scale_model_input(x, t), t), t, x)

    Call under `torch.inference_mode()`. No image is kept but the latest; an image's bits depend on
    the batch's size alone, not on its place in it nor on its neighbours.

    Args:
        model: Predicts what the scheduler's prediction_type says, in the shape of x. It is given
            the scheduler's own timesteps [batch], on the CPU: int64, or floating where they are
            fractional; of a variance-exploding model the noise level.
        scheduler: Made ready by `set_steps` on the CPU, so that no step waits for a card; its state
            is of one run.
        x_T: Standard normal noise, floating [batch, ...].
        streams: The images' own streams, fresh (`image_streams`), where the scheduler draws noise.
        eta: For the schedulers that take it, in [0, 1].

    Raises:
        ValueError: If the model's output is not shaped like x (has not twice its channels, where
            the scheduler takes a variance of the network), streams are missing, their number is not
            that of the images, or eta is not 0 where the scheduler takes none.
    """
    if eta != 0.0 and not takes_eta(scheduler):
        raise ValueError(f"eta is {eta}; {type(scheduler).__name__} takes none, so it must be 0")
    if hasattr(scheduler, "draw"):  # one of ours
        return Drawn(*scheduler.draw(model, x_T, streams))
    if hasattr(scheduler, "step_pred"):
        _require_streams(scheduler, len(x_T), streams)
        return Drawn(*predict_and_correct(model, scheduler, x_T, streams))
    more = _arguments_of_step(scheduler, len(x_T), streams, eta)
    x = x_T * scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else x_T
    scales = hasattr(scheduler, "scale_model_input")
    n_evaluations = 0
    doubled = (len(x), 2 * x.shape[1], *x.shape[2:]) if x.ndim > 1 else x.shape
    wanted = doubled if learns_variance(scheduler) else x.shape
    for t in asks_at(scheduler):
        said = model(scheduler.scale_model_input(x, t) if scales else x, t.expand(len(x)))
        n_evaluations += 1
        if said.shape != wanted:
            variance = scheduler.config.get("variance_type")
            raise ValueError(
                f"the network answers with shape {tuple(said.shape)} to {tuple(x.shape)}; "
                f"{type(scheduler).__name__} with variance_type {variance} needs {tuple(wanted)}"
            )
        x = scheduler.step(said, t, x, **more, return_dict=False)[0]
    return Drawn(x, n_evaluations)


def _require_streams(scheduler: Any, n_images: int, streams: Sequence[torch.Generator]) -> None:
    if len(streams) != n_images:
        raise ValueError(
            f"{n_images} images have {len(streams)} streams; {type(scheduler).__name__} draws "
            "noise on the way, each image's from its own"
        )


def _arguments_of_step(
    scheduler: Any, n_images: int, streams: Sequence[torch.Generator], eta: float
) -> Keywords:
    known = inspect.signature(scheduler.step).parameters
    if streams and len(streams) != n_images:
        raise ValueError(f"{n_images} images have {len(streams)} streams; each needs its own")
    more: Keywords = {}
    if "generator" in known:
        # Without streams a scheduler that draws would take the global stream, which is no image's.
        more["generator"] = list(streams) if streams else _NoStream(type(scheduler).__name__)
    if "eta" in known:
        more["eta"] = eta
    return more


class _NoStream:
    """Stands where streams should: whoever draws from it is told so."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        raise ValueError(f"{self._kind} draws noise on the way; give the images' streams")


def encode_flow(model: Denoiser, scheduler: Any, x_0: Tensor) -> Drawn:
    """Runs the ODE of a flow backwards, from clean images to their noise.

        x_(sigma') = x_sigma + (sigma' - sigma) model(x_sigma, sigma),   sigma' > sigma

    the Euler steps of `flow_euler` in the other direction, so that drawing from the result returns
    x_0 up to an error that falls with S. Source: Lipman et al. 2023 (arXiv:2210.02747); sigma is
    the share of noise, x_sigma = (1 - sigma) x_0 + sigma x_T.

    Args:
        model: Predicts the velocity x_T - x_0; it is asked at timestep sigma T, from 0 on.
        scheduler: A `FlowMatchEulerDiscreteScheduler` made ready by `set_steps`.
        x_0: Clean images, floating [batch, ...].

    Raises:
        ValueError: If the scheduler is another one, or adds noise, which no encoding can undo.
    """
    kind = type(scheduler).__name__
    if kind != FLOW_EULER or scheduler.config.stochastic_sampling or scheduler.config.invert_sigmas:
        raise ValueError(f"{kind} as it is set cannot be run backwards; only flow_euler can")
    x, n_train = x_0, scheduler.config.num_train_timesteps
    rising = [float(sigma) for sigma in scheduler.sigmas.flip(0)]
    for sigma, noisier in pairwise(rising):
        t = torch.full((len(x),), sigma * n_train, dtype=torch.float32, device=x.device)
        x = x + (noisier - sigma) * model(x, t)
    return Drawn(x, len(rising) - 1)
