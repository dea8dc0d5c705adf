"""Does another seed of the tuning noise give a list of the same quality? Five searches say.

    python -m benchmarks.tuning_noise CHECKPOINT      # a folder of a U-Net: a minute and a half

Tunes DPM++ 2M at 4 calls on 128 images of each seed, and judges the five lists on common fresh
noise: each one's distance from the long run minus the mean of the five, with its 95 % interval.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from ddim_core.checkpoints.checkpoint import load_checkpoint, scheduler_config
from ddim_core.checkpoints.conditioning import conditioned
from ddim_core.networks.denoisers import network_batch
from ddim_core.samplers.name import SamplerName, parse_sampler
from ddim_core.samplers.scheduler import Visited, scheduler_for, set_steps
from ddim_core.tuning.evaluations import Distances, Evaluations
from ddim_core.tuning.judged import joined, mean_with_interval
from ddim_core.tuning.positions import scale_of
from ddim_core.tuning.runs import FRESH, TUNING, LoopRuns, chunks_of
from ddim_core.tuning.search import Task, search
from ddim_core.tuning.target import USUAL, Target, long_run

SEEDS, IMAGES, CALLS, BUDGET, LONG = 5, 128, 4, 4000, 128
FRESH_SEED = 99


def main() -> int:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    loaded, own = load_checkpoint(folder), scheduler_config(folder)
    size = network_batch(loaded.noise_shape)
    chunks = chunks_of(IMAGES, size)
    name, long = parse_sampler("dpmpp_2m"), parse_sampler(USUAL["vp"])

    def visits(sampler: SamplerName, steps: int) -> Visited:
        return set_steps(scheduler_for(sampler, own), sampler, steps)

    def runs_of(seed: int, first: int) -> tuple[LoopRuns, Target]:
        runs = LoopRuns(
            lambda indices: conditioned(loaded, indices, 1.0), own, loaded.noise_shape, seed, first,
            IMAGES, size,
        )  # fmt: skip
        return runs, long_run(runs, len(chunks), long, lambda _: 1.0, LONG)

    def away(runs: LoopRuns, target: Target, sampler: SamplerName, chunk: int) -> Distances:
        return target.from_it(runs.ends(sampler, CALLS, chunk), chunk)

    scale = scale_of(name, own, visits, CALLS)
    fresh, fresh_target = runs_of(FRESH_SEED, FRESH)
    found = []
    for seed in range(SEEDS):
        began = time.process_time()
        runs, target = runs_of(seed, TUNING)
        kept = Evaluations(lambda s, _, i, r=runs, t=target: away(r, t, s, i))  # type: ignore[misc]
        best = search(Task(name, CALLS, CALLS, tuple(map(len, chunks)), BUDGET), scale, kept)
        listed = scale.listed(name, best.positions)
        found.append(joined([away(fresh, fresh_target, listed, i) for i in range(len(chunks))]))
        print(
            f"seed {seed}: {listed.text}, {found[-1].mean():.4f} on fresh noise, {best.n_tried} "
            f"candidates, {time.process_time() - began:.1f} CPU s",
            flush=True,
        )
    middle = np.mean(found, axis=0)
    for seed, distances in enumerate(found):
        apart = mean_with_interval(distances - middle)
        print(f"seed {seed}: {apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}] from the mean")
    return 0


if __name__ == "__main__":
    sys.exit(main())
