"""Images k of a cell, drawn by a pipeline's own call with a scheduler of diffusers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.common.checks import require_at_least
from ddim_core.common.foreign import Keywords
from ddim_core.devices.out_of_memory import OUT_OF_MEMORY, memory_told
from ddim_core.devices.placing import compiled
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.images.batches import in_batches
from ddim_core.pipelines.arguments import Conditions, Setting, call_arguments, placed, rows_for
from ddim_core.pipelines.fitting import GUIDED, halves_of, require_conditions, require_setting
from ddim_core.pipelines.guidance.halves import Unguided, without_guidance
from ddim_core.pipelines.opening import DTYPES, OpenedPipeline
from ddim_core.pipelines.rehearsal import refusal
from ddim_core.pipelines.stage import (
    Conductor,
    Starts,
    own_copy,
    replace_networks,
    watch_networks,
)
from ddim_core.pipelines.takes import networks_of
from ddim_core.samplers.families import inside_of
from ddim_core.samplers.scheduler import scheduler_for
from ddim_core.samplers.streams import image_streams


@dataclass(frozen=True, eq=False)
class DrawnImages:
    """What a run drew.

    Attributes:
        images: uint8 [n, height, width, channels].
        nfe: Evaluations of the network for one image, as they happened: guidance that doubles the
            batch, or asks twice, counts as two.
    """

    images: NDArray[np.uint8]
    nfe: int


def draw(
    opened: OpenedPipeline,
    setting: Setting,
    indices: Sequence[int],
    conditions: Conditions,
    batch_size: int,
    n_before: int = 0,
) -> DrawnImages:
    """Draws images by a pipeline's own call, each from the noise that belongs to it.

    Image k starts from `ImageNoise(seed, [k], shape).x_T()` and a scheduler's own draws come from
    `image_streams(seed, [k])`: float32, then cast. All batches have one size, the last one filled
    up, so that an image's bits depend on neither its place nor its neighbours. Threads may draw
    from one pipeline at once.

    Args:
        opened: The pipeline.
        setting: Sampler, steps, guidance, eta, seed.
        indices: The images k, at least one.
        conditions: What they are drawn for; a row for each of `indices`, or one for all.
        batch_size: Images at once.
        n_before: Images drawn before them; on a card, where bits may depend on it, each has the
            place in its batch that it would have after those.

    Raises:
        ValueError: If the pipeline and the setting cannot work together, the conditions are not
            those that it takes, or a pixel is not finite.
        MemoryError: If memory runs out, with the setting to lower.
    """
    require_at_least("batch_size", batch_size, 1)
    require_setting(opened, setting)
    require_conditions(opened, conditions, setting.guidance, len(indices))
    here = placed(conditions, opened.device, DTYPES[opened.dtype])
    stage = Stage(opened, setting)

    def batch(rows: list[int]) -> Tensor:
        return stage.batch([indices[row] for row in rows], rows_for(here, rows))

    with memory_words(batch_size):
        places = n_before if opened.on_card else 0
        images = in_batches(len(indices), batch_size, batch, places)
    return DrawnImages(images, stage.nfe)


def ready_for_card(opened: OpenedPipeline, by_compiler: bool) -> OpenedPipeline:
    """Has a pipeline's networks that draw compiled, if asked for; its images then stay on the card
    until they are bytes.

    Networks keep their layout: channels last, SD 1.5 and SDXL were 2 to 9 % slower than diffusers'
    own call on an H200, and compiled no faster.
    """
    if by_compiler:
        for name in networks_of(opened.pipeline):
            network = getattr(opened.pipeline, name)
            network.forward = compiled(network.forward)
    return replace(opened, on_card=True)


class Stage:
    """A copy of a pipeline on which the batches of one run are drawn, one after another.

    Args:
        opened: The pipeline.
        setting: How it draws.
        instead: Makes of a network's name and its forward what is called in its place.
    """

    def __init__(
        self,
        opened: OpenedPipeline,
        setting: Setting,
        instead: Callable[[str, Callable[..., Any]], Callable[..., Any]] | None = None,
    ) -> None:
        self.nfe = 0
        self._opened, self._setting = opened, setting
        self._mine = own_copy(opened.pipeline, None)
        self._n_rows = 0
        self._conductor: Conductor | None = None
        self._inside: Callable[[float], bool] | None = None
        if instead is not None:
            replace_networks(self._mine, instead)
        watch_networks(self._mine, self._count)
        if setting.interval is not None and setting.guidance > GUIDED:
            self._inside = inside_of(setting.interval, opened.scheduler)
            halves = halves_of(opened, setting.interval)
            replace_networks(self._mine, without_guidance(halves, self._unguided))

    def _unguided(self) -> Unguided | None:
        assert self._conductor is not None
        return self._conductor.unguided()

    @property
    def first_told(self) -> Tensor:
        """What the scheduler was told at the first step of the last batch, float32 [n, ...]."""
        assert self._conductor is not None
        return self._conductor.first_told.float()

    def _count(self, images: Any) -> None:
        self._n_rows += len(images)

    def batch(self, keys: Sequence[int], conditions: Conditions) -> Tensor:
        """Returns images [n, channels, height, width], float32 in [0, 1]; on the CPU but for a
        pipeline on a card."""
        opened, setting = self._opened, self._setting
        streams = image_streams(setting.seed, keys)
        x_T = ImageNoise(setting.seed, keys, opened.shape).x_T().to(opened.latent_dtype)
        scheduler = scheduler_for(setting.sampler, opened.scheduler)
        conductor = Conductor(scheduler, opened.name, setting, streams, x_T, self._inside)
        self._conductor = conductor
        vars(self._mine)["scheduler"] = scheduler
        self._n_rows = 0
        given = x_T.to(opened.device) if opened.takes.latents else None
        arguments = call_arguments(
            opened.takes, conditions, streams, setting.steps, setting.guidance, setting.eta,
            opened.size, given,
        )  # fmt: skip
        # NumPy has no bfloat16, and no one casts it there; a card makes bytes of its own images.
        as_array = opened.dtype == "bfloat16" and not hasattr(self._mine, "image_processor")
        if as_array or (opened.on_card and hasattr(self._mine, "image_processor")):
            arguments["output_type"] = "pt"
        made = self._called(arguments, Starts(streams, x_T) if given is None else None)
        conductor.require_used()
        self.nfe = self._n_rows // len(keys)
        pixels = _pixels(made)
        return pixels if opened.on_card else pixels.cpu()

    def _called(self, arguments: Keywords, starts: Starts | None) -> Any:
        try:
            if starts is None:
                return self._mine(**arguments)
            with starts:
                return self._mine(**arguments)
        except (torch.OutOfMemoryError, MemoryError, ValueError):
            raise
        except Exception as error:  # a pair that does not fit can fail in every way
            if any(words in str(error) for words in OUT_OF_MEMORY):
                raise
            raise ValueError(
                refusal(self._opened.name, self._setting.sampler.text, error)
            ) from error


def _pixels(made: Any) -> Tensor:
    images = made.images if hasattr(made, "images") else made[0]
    if isinstance(images, Tensor):
        return images.float()
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1))).float()


def memory_words(batch_size: int) -> AbstractContextManager[None]:
    """Inside, running out of memory is a MemoryError that says which settings to lower."""
    lower = "lower batch_size, or " if batch_size > 1 else ""
    return memory_told(
        f"memory ran out at batch_size {batch_size}; {lower}take dtype bfloat16 or float16, or a "
        "lower resolution"
    )
