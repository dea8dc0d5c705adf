"""Prompts in, pictures out, by any text-to-image pipeline of diffusers, with or without a LoRA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.common.late import late
from ddim_core.common.plain_files import is_there
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.images.batches import in_batches
from ddim_core.networks.building import LOADING
from ddim_core.text2image.base_folder import load_pipeline
from ddim_core.text2image.families import family_of_pipeline, network_of
from ddim_core.text2image.scheduler_noise import require_no_noise, require_own_noise, step_noise

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

ADAPTER = "scored"
BATCH = 32


def open_pipeline(base: Path, lora: Path | None = None, device: str = "cpu") -> Any:
    """Opens a base in float32, with a LoRA folder on it where one is given; nothing is downloaded.

    A safety checker is left out: it would paint pictures black that are to be scored. Code that
    lies in a folder is never run.

    Raises:
        ValueError: If either folder cannot be opened.
    """
    if not is_there(base / "model_index.json"):
        raise ValueError(f"{base} is no diffusers pipeline; it must hold a model_index.json")
    try:
        pipeline = load_pipeline(base, device)
    except (OSError, ValueError, TypeError, ImportError) as error:  # a scheduler may need torchsde
        raise ValueError(f"{base} cannot be opened as a pipeline: {error}") from error
    if lora is not None:
        try:
            with LOADING, _quiet():
                pipeline.load_lora_weights(lora, adapter_name=ADAPTER)
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"{lora} cannot be laid over {base.name}: {error}") from error
    return pipeline


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps diffusers from saying that a LoRA has no part in the text encoder."""
    logging = diffusers.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def set_scale(pipeline: Any, scale: float) -> None:
    """Sets how much of the LoRA counts: 0 is the base itself, bit by bit, and 1 the whole."""
    if scale == 0.0:
        pipeline.disable_lora()
        return
    pipeline.enable_lora()
    pipeline.set_adapters([ADAPTER], [scale])


def pictures(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int = 25,
    guidance: float = 2.0,
    batch_size: int = BATCH,
    resolution: int = 0,
) -> NDArray[np.uint8]:
    """Samples one picture per prompt with the pipeline's own scheduler.

    Every picture starts from noise that is a function of its own seed alone, and so does the noise
    that a stochastic scheduler adds on the way: two models given the same prompts and seeds are
    compared picture by picture. The last batch is filled up: a picture does not depend on its
    neighbours.

    Args:
        pipeline: A text-to-image pipeline.
        prompts: One per picture.
        seeds: One per picture, each in 0..2^63 - 1.
        steps: Sampling steps.
        guidance: Scale of classifier-free guidance; 1 is none.
        batch_size: Pictures at once.
        resolution: Height and width in pixels; 0 is the base's own.

    Returns:
        uint8 [n, height, width, 3].

    Raises:
        ValueError: If prompts and seeds differ in number, the resolution is no multiple of the
            autoencoder's factor, the scheduler draws noise that belongs to no picture, or a pixel
            is not finite.
    """
    if len(prompts) != len(seeds) or not prompts:
        raise ValueError(f"{len(prompts)} prompts have {len(seeds)} seeds; each needs one")
    family, config = family_of_pipeline(pipeline), network_of(pipeline).config
    factor = pipeline.vae_scale_factor
    side = resolution or family.latents(config) * factor
    if side % factor or side < factor:
        raise ValueError(f"resolution is {resolution}; it must be a multiple of {factor}")
    shape = (family.channels(config), side // factor, side // factor)
    if family.flow:
        require_no_noise(pipeline.scheduler)
    else:
        require_own_noise(pipeline.scheduler, steps)

    def batch(rows: list[int]) -> Tensor:
        keys = [seeds[row] for row in rows]
        noise = torch.cat([ImageNoise(key, [0], shape).x_T() for key in keys])
        drawn: Tensor = pipeline(
            prompt=[prompts[row] for row in rows],
            height=side,
            width=side,
            latents=family.packed(pipeline, noise).to(pipeline.device),
            generator=step_noise(keys),
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="pt",
        ).images
        return drawn.float().cpu()

    with torch.no_grad():
        return in_batches(len(prompts), batch_size, batch)
