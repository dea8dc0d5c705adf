"""The long run that short ones are compared with: doubled until doubling it moves little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ddim_core.samplers.catalogue import Family
from ddim_core.samplers.name import SamplerName
from ddim_core.tuning.runs import Runs, distances

SHORTEST, LONGEST = 32, 512  # steps of a long run
LOOKED_AT = 2  # chunks on which the number of steps is found
STILL = 0.05
"""Of what the short runs are away: a long run that doubling moves by less is long enough."""
USUAL: dict[Family, str] = {
    "vp": "dpmpp_2m?timestep_spacing=linspace",
    "flow": "flow_heun",
}
"""Solvers of second order, which are near the ODE's end in fewer steps."""


@dataclass(frozen=True, eq=False)
class Target:
    """Where the long run ends.

    Attributes:
        sampler, steps: The long run.
        ends: By chunk, float32 [n, ...].
        moved: How far doubling the steps before moved the ends of the first chunks: mean distance
            of half the steps.
        settled: Whether that is little beside what is tuned.
    """

    sampler: SamplerName
    steps: int
    ends: tuple[Tensor, ...]
    moved: float
    settled: bool

    def from_it(self, ends: Tensor, chunk: int) -> np.ndarray:
        """Returns how far the images of a chunk end from the long run's, image by image."""
        return distances(ends, self.ends[chunk])


def long_run(
    runs: Runs,
    n_chunks: int,
    sampler: SamplerName,
    beside: Callable[[Target], float],
    steps: int | None = None,
) -> Target:
    """Makes the long run, of so many steps as it takes for doubling them to move little.

    How many that is, is found on the first chunks; then all are drawn.

    Args:
        runs: Of the model.
        n_chunks: Of the images.
        sampler: Of the long run.
        beside: How far the short runs are from a target as they are without tuning, over the
            chunks that the target has.
        steps: Take so many, however far doubling would move them.
    """
    few = min(n_chunks, LOOKED_AT)
    found = _found(runs, few, sampler, beside, steps)
    others = _ends(runs, range(few, n_chunks), sampler, found.steps)
    return replace(found, ends=found.ends + others)


def _found(
    runs: Runs,
    n_chunks: int,
    sampler: SamplerName,
    beside: Callable[[Target], float],
    steps: int | None,
) -> Target:
    n = steps or SHORTEST
    ends = _ends(runs, range(n_chunks), sampler, max(n // 2, 1) if steps else n)
    while True:
        n = steps or 2 * n
        try:
            longer = _ends(runs, range(n_chunks), sampler, n)
        except ValueError as error:
            if steps:
                raise ValueError(f"long_steps is {steps}: {error}") from error
            return _shorter(runs, ends, sampler, n // 2, beside)  # the model has few timesteps
        moved = float(np.mean(np.concatenate(list(map(distances, ends, longer)))))
        target = Target(sampler, n, longer, moved, False)
        settled = moved <= STILL * beside(target)
        if settled or steps or n >= LONGEST:
            return Target(sampler, n, longer, moved, settled)
        ends = longer


def _shorter(
    runs: Runs,
    whole: tuple[Tensor, ...],
    sampler: SamplerName,
    n: int,
    beside: Callable[[Target], float],
) -> Target:
    """The long run of n steps, drawn already, where there cannot be twice as many."""
    half = _ends(runs, range(len(whole)), sampler, n // 2)
    moved = float(np.mean(np.concatenate(list(map(distances, half, whole)))))
    target = Target(sampler, n, whole, moved, False)
    return Target(sampler, n, whole, moved, moved <= STILL * beside(target))


def _ends(
    runs: Runs, chunks: Sequence[int], sampler: SamplerName, steps: int
) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        return tuple(runs.ends(sampler, steps, chunk) for chunk in chunks)
