"""Runs of a mixture's exact network: what is tuned can be compared with every list there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ddim_core.samplers.name import SamplerName, parse_sampler
from ddim_core.samplers.scheduler import Visited, scheduler_for, set_steps
from ddim_core.tuning.evaluations import Evaluations
from ddim_core.tuning.positions import Positions, Scale, scale_of
from ddim_core.tuning.runs import TUNING, LoopRuns, chunks_of
from ddim_core.tuning.search import MOVES, Found, Task, search
from ddim_core.tuning.target import USUAL, Target, long_run
from tests.core.samplers.exact import World, network

IMAGES, CHUNK = 48, 24


class Exact:
    """A world's exact network, its long run, and distances from it."""

    def __init__(self, world: World, own: Mapping[str, Any], n: int = IMAGES) -> None:
        self.world, self.own = world, own
        self.chunks = tuple(map(len, chunks_of(n, CHUNK)))
        ask = network(world, scheduler_for(parse_sampler("own"), own))
        self.runs = LoopRuns(lambda _: ask, own, (2,), 0, TUNING, n, CHUNK)
        family = "vp" if world == "vp" else world
        self.target: Target = long_run(
            self.runs, len(self.chunks), parse_sampler(USUAL[family]), lambda _: 1.0, 64
        )

    def visits(self, name: SamplerName, steps: int) -> Visited:
        return set_steps(scheduler_for(name, self.own), name, steps)

    def scale(self, sampler: str) -> Scale:
        return scale_of(parse_sampler(sampler), self.own, self.visits)

    def measure(self, sampler: SamplerName, steps: int, chunk: int) -> np.ndarray:
        return self.target.from_it(self.runs.ends(sampler, steps, chunk), chunk)

    def search(self, sampler: str, steps: int, budget: float = 1e6, **more: Any) -> Found:
        moves = more.get("moves", MOVES)
        task = Task(parse_sampler(sampler), steps, steps, self.chunks, budget, moves)
        kept = more.get("kept") or Evaluations(self.measure)
        return search(task, self.scale(sampler), kept, more.get("known", ()))

    def mean(self, sampler: str, positions: Positions) -> float:
        listed = self.scale(sampler).listed(parse_sampler(sampler), positions)
        ends = [self.measure(listed, len(positions), i) for i in range(len(self.chunks))]
        return float(np.mean(np.concatenate(ends)))
