"""Pictures of a page that are compared: strips, what they are sorted by, the nearest real ones,
and the x0 predicted on the way to the first of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ddim_core.common.foreign import Json
from tasks.reports.frame.nearest import UNIT, Images, nearest_real
from tasks.reports.frame.sprites import sprites

PAGE_IMAGES = 24  # of each cell, to step through
MOST_BYTES = 900_000  # of the strips of predicted x0, as base64
SMALLEST = 16  # pixels a side of a predicted x0


@dataclass(frozen=True)
class Predicted:
    """The x0 predicted on the way to a cell's first images: uint8 [n, k, height, width, channels]
    at k of its `calls`, and their timesteps `t`."""

    x0: NDArray[np.uint8]
    t: tuple[float, ...]
    calls: int


@dataclass(frozen=True)
class Pictures:
    """What is compared.

    Attributes:
        batches: By name, uint8 [n, height, width, channels], all of one shape and noise.
        left, right: The names of the two that are compared at first.
        orders: By the name of a score, each batch's numbers in order of image.
        texts: What each image was drawn for, by batch; empty where there is no such.
        real: Real images, of which the nearest stand beside; None where there are none.
        predicted: By name, on the way to a batch's first images.
    """

    batches: Mapping[str, Images]
    left: str
    right: str
    orders: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    real: Images | None = None
    predicted: Mapping[str, Predicted] = field(default_factory=dict)


def picture_data(asked: Pictures) -> Json:
    """Returns what the pages' script of pictures reads, as plain JSON; `left_out` says in words
    what of it a page has no room for."""
    batches, real = asked.batches, asked.real
    channels = next(iter(batches.values())).shape[-1]
    alike = real is not None and len(real) > 0 and real.shape[-1] == channels
    nearest = nearest_real(batches, real) if real is not None and alike else None
    beside = {} if real is None or nearest is None else {
        f"real {name}": real[numbers] for name, numbers in nearest.numbers.items()
    }  # fmt: skip
    found = sprites({**batches, **beside})
    return {
        **vars(found),
        "sheets": {name: found.sheets[name] for name in batches},
        "orders": {
            score: {name: [float(x) for x in values[: found.count]] for name, values in by.items()}
            for score, by in asked.orders.items()
        },
        "texts": {name: list(texts[: found.count]) for name, texts in asked.texts.items()},
        "nearest": nearest
        and {
            **vars(nearest),
            "unit": UNIT,
            "sheets": {name: found.sheets[f"real {name}"] for name in batches},
        },
        "predicted": _predicted(asked.predicted) if asked.predicted else None,
        "left": asked.left,
        "right": asked.right,
    }


def _predicted(by_name: Mapping[str, Predicted]) -> Json | None:
    """Strips of a cell's images one after the other, all calls of the first first: of as many
    images as there is room for, and of smaller ones. None where not even one image fits."""
    longest = max(len(one.t) for one in by_name.values())
    n = min(len(one.x0) for one in by_name.values())
    frames = {
        name: np.pad(one.x0[:n], [(0, 0), (0, longest - len(one.t)), *[(0, 0)] * 3], mode="edge")
        for name, one in by_name.items()
    }
    strips = {name: x0.reshape(-1, *x0.shape[2:]) for name, x0 in frames.items()}
    found = sprites(strips, MOST_BYTES, longest, SMALLEST)
    shown = found.count // longest
    return {
        **vars(found),
        "each": longest,
        "shown": shown,
        "cells": {name: {"t": one.t, "calls": one.calls} for name, one in by_name.items()},
    } if shown else None  # fmt: skip
