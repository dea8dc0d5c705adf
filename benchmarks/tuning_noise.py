"""Does another seed of the tuning noise give a list of the same quality? Five searches say.

    python -m benchmarks.tuning_noise CHECKPOINT      # a folder of a U-Net: a minute and a half

Tunes DPM++ 2M at 4 calls on 128 images of each seed, and judges the five lists on common fresh
noise: each one's distance from the long run minus the mean of the five, with its 95 % interval.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.tuning_sides import Model, Side, timed, unconditional
from ddim_core.tuning.judged import mean_with_interval
from ddim_core.tuning.runs import TUNING

SEEDS, IMAGES, CALLS = 5, 128, 4


def main() -> int:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    make, first = unconditional(folder, IMAGES), Model.of_folder(folder, IMAGES)
    found = []
    for seed in range(SEEDS):
        model = replace(first, tuning=Side.of(make, seed, TUNING)) if seed else first
        listed, _ = timed(model, "dpmpp_2m", CALLS)
        found.append(model.fresh.away(listed, CALLS))
    middle = np.mean(found, axis=0)
    for seed, distances in enumerate(found):
        apart = mean_with_interval(distances - middle)
        print(f"seed {seed}: {apart.mean:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}] from the mean")
    return 0


if __name__ == "__main__":
    sys.exit(main())
