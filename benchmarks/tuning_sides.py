"""What the benchmarks of tuning share: images, their long run, how far short ones end from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ddim_core.checkpoints.checkpoint import load_checkpoint, scheduler_config
from ddim_core.checkpoints.conditioning import conditioned
from ddim_core.common.foreign import Config
from ddim_core.networks.denoisers import network_batch
from ddim_core.samplers.name import SamplerName, parse_sampler
from ddim_core.tuning.asked import visits_by_loop
from ddim_core.tuning.evaluations import Distances, Evaluations
from ddim_core.tuning.judged import joined
from ddim_core.tuning.positions import scale_of
from ddim_core.tuning.runs import FRESH, TUNING, LoopRuns, Runs, chunks_of
from ddim_core.tuning.search import Found, Task, search
from ddim_core.tuning.target import USUAL, Target, long_run

BUDGET, LONG = 4000, 128
FRESH_SEED = 99
MakeRuns = Callable[[int, int], tuple[Runs, list[range]]]
"""Runs of a seed's images from an index on, and the places of each chunk."""


@dataclass(frozen=True)
class Side:
    """Images of one seed.

    Attributes:
        runs, target: Short ones, and the long one.
        chunks: Places of the images.
    """

    runs: Runs
    target: Target
    chunks: list[range]

    @classmethod
    def of(cls, make: MakeRuns, seed: int, first: int, long: int = LONG) -> Side:
        """The images of a seed, their long run drawn."""
        runs, chunks = make(seed, first)
        sampler = parse_sampler(USUAL["vp"])
        return cls(runs, long_run(runs, len(chunks), sampler, lambda _: 1.0, long), chunks)

    def chunk(self, sampler: SamplerName, steps: int, chunk: int) -> Distances:
        """How far the images of a chunk end from the long run."""
        return self.target.from_it(self.runs.ends(sampler, steps, chunk), chunk)

    def away(self, text: str, steps: int) -> Distances:
        """How far all images end from the long run."""
        name = parse_sampler(text)
        return joined([self.chunk(name, steps, i) for i in range(len(self.chunks))])


@dataclass(frozen=True)
class Model:
    """A model of which lists are tuned: images to tune on, and fresh ones.

    Attributes:
        own: Its scheduler_config.json, with its class.
        tuning, fresh: The images.
    """

    own: Config
    tuning: Side
    fresh: Side

    @classmethod
    def of_folder(cls, folder: Path, images: int, seed: int = 0) -> Model:
        """A folder of an unconditional U-Net, drawn by our loop."""
        own, make = scheduler_config(folder), unconditional(folder, images)
        return cls(own, Side.of(make, seed, TUNING), Side.of(make, FRESH_SEED, FRESH))

    def tuned(self, text: str, calls: int, **other: object) -> tuple[str, Found]:
        """Searches the list of a sampler; returns the sampler with it, and what was done."""
        name = parse_sampler(text)
        scale = scale_of(name, self.own, visits_by_loop(self.own), calls)
        sizes = tuple(map(len, self.tuning.chunks))
        task = replace(Task(name, calls, calls, sizes, BUDGET), **other)  # type: ignore[arg-type]
        found = search(task, scale, Evaluations(self.tuning.chunk))
        return scale.listed(name, found.positions).text, found


def unconditional(folder: Path, images: int) -> MakeRuns:
    """Runs of a folder of an unconditional U-Net."""
    loaded, own = load_checkpoint(folder), scheduler_config(folder)
    size, shape = network_batch(loaded.noise_shape), loaded.noise_shape
    network = partial(conditioned, loaded, guidance_scale=1.0)

    def make(seed: int, first: int) -> tuple[Runs, list[range]]:
        runs = LoopRuns(lambda i: network(indices=i), own, shape, seed, first, images, size)
        return runs, chunks_of(images, size)

    return make


def timed(model: Model, text: str, calls: int, **other: object) -> tuple[str, Found]:
    """Tunes, and prints what came of it."""
    began = time.process_time()
    listed, found = model.tuned(text, calls, **other)
    away = float(np.mean(model.fresh.away(listed, calls)))
    print(
        f"{listed}: {away:.4f} on fresh noise, {found.n_tried} candidates, "
        f"{time.process_time() - began:.1f} CPU s",
        flush=True,
    )
    return listed, found
