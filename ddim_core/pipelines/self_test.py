"""Does an image depend on its place? A pipeline and a sampler, tried before they are trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ddim_core.pipelines.arguments import Conditions, Setting, placed, rows_for
from ddim_core.pipelines.drawing import Stage, memory_words
from ddim_core.pipelines.fitting import require_conditions, require_setting
from ddim_core.pipelines.opening import DTYPES, OpenedPipeline
from ddim_core.safe_files.safe_load import first_line

PROBE, OTHERS = 3, (11, 12, 13, 14)
"""The image that is looked at, and its neighbours in one batch and in the other."""
NOWHERE = (1e30, 2e30)
"""Noise levels that no image has."""
ROUNDING = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}
"""Of the largest value: of g + 1 times a number less g times the same."""


def require_place_free(
    opened: OpenedPipeline, setting: Setting, conditions: Conditions, batch_size: int
) -> None:
    """Makes sure that a pipeline with a sampler gives an image the same bits wherever it stands.

    Draws one image in two batches, at the first and at the last place, among other neighbours: two
    runs of `setting.steps` steps (2 or 3 will do) of the batch size that is meant to be used. On a
    card, whose kernels may sum in another order at another place, an image keeps its place
    (`n_before` of `draw`), and is tried at one. With an interval of guidance, two runs more show
    that a step outside of it is one without guidance.

    Args:
        opened, setting, batch_size: As of `draw`.
        conditions: At least one row; the first is the image's, the others' come after it.

    Raises:
        ValueError: If the bits differ, with the reason, or the call draws one image at a time, or
            its guidance cannot be left out; or as `draw`.
        MemoryError: As `draw`.
    """
    require_setting(opened, setting)
    n_rows = max((len(value) for value in conditions.values()), default=1)
    require_conditions(opened, conditions, setting.guidance, n_rows)
    here = placed(conditions, opened.device, DTYPES[opened.dtype])
    stage = Stage(opened, setting)
    neighbours = [list(OTHERS[i::2]) for i in (0, 1)]
    batches = [_batch(others, batch_size) for others in neighbours]
    if not opened.on_card:
        batches[1] = batches[1][1:] + batches[1][:1]

    def shown(keys: Sequence[int], by: Stage = stage) -> NDArray[np.float32]:
        rows = rows_for(here, [0 if key == PROBE else key % n_rows for key in keys])
        pixels: NDArray[np.float32] = by.batch(keys, rows)[keys.index(PROBE)].cpu().numpy()
        return pixels

    with memory_words(batch_size):
        try:
            first, last = shown(batches[0]), shown(batches[1])
        except ValueError as error:
            if batch_size == 1 or not _is_drawn(shown):
                raise
            raise ValueError(
                f"{opened.name} draws one image at a time, and not {batch_size} (with "
                f"{setting.sampler.text}: {first_line(error.__cause__ or error)}); give batch_size "
                "1"
            ) from error
        if not np.isfinite(first).all():
            raise ValueError(
                f"{opened.name} with {setting.sampler.text} leaves pixels that are not finite; "
                "take another sampler"
            )
        if setting.interval is not None:
            _require_left_out(opened, setting, lambda stage: shown(batches[0], stage))
        if np.array_equal(first, last):
            return
        again = shown(batches[0])
    name, who = setting.sampler.text, opened.name
    if not np.array_equal(first, again):
        raise ValueError(
            f"{who} with {name} draws noise that belongs to no image, so that each run would draw "
            "other images; take another sampler"
        )
    raise ValueError(
        f"{who} with {name} gives an image other bits in another batch (by up to "
        f"{float(np.abs(first - last).max()):.1g} of 1); take another sampler, or batch_size 1"
    )


def _require_left_out(
    opened: OpenedPipeline, setting: Setting, drawn: Callable[[Stage], object]
) -> None:
    """Makes sure that a step whose guidance is left out is one without guidance: that the scheduler
    is told the same."""
    assert setting.interval is not None
    low, high = setting.interval
    left_out = Stage(opened, replace(setting, interval=NOWHERE))
    drawn(left_out)
    apart = math.inf
    for none in (1.0, 0.0):  # a few calls guide by g + 1
        plain = Stage(opened, replace(setting, guidance=none, interval=None))
        drawn(plain)
        if plain.nfe == left_out.nfe:
            ours, theirs = left_out.first_told, plain.first_told
            apart = float((ours - theirs).abs().max() / theirs.abs().max())
            break
    if not apart <= ROUNDING[opened.dtype]:
        raise ValueError(
            f"guidance_interval is {low:g},{high:g}, and a step of a {opened.name} without "
            "guidance is another than one whose guidance is left out (by "
            f"{apart:.1g} of the largest value); leave the interval out"
        )


def _is_drawn(shown: Callable[[Sequence[int]], NDArray[np.float32]]) -> bool:
    """Whether one image alone is."""
    try:
        shown([PROBE])
    except ValueError:
        return False
    return True


def _batch(others: Sequence[int], batch_size: int) -> list[int]:
    fill = [others[i % len(others)] for i in range(batch_size - 1)]
    return [PROBE, *fill]
