"""How often a verdict is wrong, and what it finds; about ten CPU minutes, not part of `make bench`.

    python -m benchmarks.verdict_level PART     # aa, synthetic, twins or planted

adds its numbers to verdict_level.json.

- `aa`: one model, two disjoint sets of images drawn at random from a large pool, judged as if they
  were two checkpoints. Whatever differs is chance: every verdict but `tied` is a false alarm. The
  sets share no noise; with shared noise the differences and their estimated spread shrink together.
- `synthetic`: the same with Gaussian features instead of a model's.
- `twins`: the same training from other seeds, with shared noise. Twins differ a little in truth, so
  being told apart is no error; the share and size of it say what a margin has to forgive.
- `planted`: noise of a growing share of each tensor's standard deviation on the weights of one.
"""

from __future__ import annotations

import argparse
import copy
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddim_core.decisions.checkpoints.verdict import judge
from ddim_core.decisions.row import CellRow
from ddim_core.diffusion.sampling import ImageNoise, sample
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.features.extractor import PixelFeatures
from ddim_core.images.load import load_images
from ddim_core.images.pixels import to_uint8
from ddim_core.networks.denoisers import UNetModel
from ddim_core.networks.specs import TrainSpec
from ddim_core.networks.training import start, train
from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.distances.frechet_score import frechet_interval
from ddim_core.statistics.moments import FeatureMoments
from tests.core.rows import cell_row

RESULTS = Path(__file__).with_name("verdict_level.json")
GROUPS, POOL, BATCH = 20, 8000, 250
SETS = (500, 2000, 4000)
TRIALS = 500
CELLS = [(5, 0.0), (5, 1.0), (10, 0.0), (10, 1.0)]
TRAIN_STEPS = 1000
TWINS = 6
SHARES = [0.01, 0.02, 0.05, 0.1, 0.2]
Rows = list[CellRow]
Images = dict[tuple[int, float], NDArray[np.float32]]


def trained(seed: int) -> torch.nn.Module:
    """The demo's model after fewer steps, from a training seed of its own."""
    spec = TrainSpec(steps=TRAIN_STEPS, seed=seed)
    state = start(spec)
    for _ in train(spec, load_images("digits", "train").images, state):
        pass
    return state.ema.eval()


def drawn(unet: torch.nn.Module, n: int) -> Images:
    """Pixel features [n, 64] of every cell, image by image from the same noise in all cells."""
    schedule = NoiseSchedule.from_spec(TrainSpec().noise)
    model = UNetModel(unet)  # type: ignore[arg-type]
    features = PixelFeatures(8, 8, 1)
    found = {}
    for steps, eta in CELLS:
        batches = []
        for first in range(0, n, BATCH):
            noise = ImageNoise(0, list(range(first, first + BATCH)), (1, 8, 8), "cpu")
            with torch.inference_mode():
                spec = SamplerSpec(steps, eta)
                *_, last = sample(model, schedule, spec, noise.x_T(), noise)
            batches.append(features(to_uint8(last.x)))
        found[steps, eta] = np.concatenate(batches)
    return found


def rows(images: Images, chosen: NDArray[np.int64], reference: Reference) -> Rows:
    """What a verdict reads of a grid, for the chosen images."""
    table = []
    for (steps, eta), features in images.items():
        groups = np.array_split(features[chosen], GROUPS)
        score = frechet_interval([FeatureMoments.from_features(g) for g in groups], reference)
        table.append(cell_row(**{
            "steps": steps, "eta": eta, "variance": "eta", "spacing": "uniform", "clip": False,
            "guidance_scale": 1.0, "fid": score.fid, "fid_low": score.fid_low,
            "fid_high": score.fid_high, "fid_leave_one_out": list(score.loo),
            "group_sizes": list(score.sizes),
        }))  # fmt: skip
    return table


def alarms(reference: Reference) -> dict[str, Any]:
    """Counts false alarms of equal checkpoints at the operating point, and in any cell."""
    images = drawn(trained(0), POOL)
    by_size = {str(size): alarms_of(images, size, reference) for size in SETS}
    error = (0.05 * 0.95 / TRIALS) ** 0.5
    return {
        "trials": TRIALS, "level": 0.05, "standard_error_at_level": round(error, 4),
        "cells": len(CELLS), "features": "pixels, d = 64", "by_n_images": by_size,
    }  # fmt: skip


def alarms_of(images: Images, size: int, reference: Reference) -> dict[str, float]:
    generator = np.random.default_rng(0)
    calls, in_any = [], 0
    for _ in range(TRIALS):
        order = generator.permutation(POOL)
        one, other = order[:size], order[size : 2 * size]
        found = judge(rows(images, one, reference), rows(images, other, reference))
        calls.append(found.call)
        in_any += any(cell.call != "tied" for cell in found.cells)
    return {
        "better": calls.count("better") / TRIALS, "worse": calls.count("worse") / TRIALS,
        "any_cell": in_any / TRIALS,
    }  # fmt: skip


def synthetic(_: Reference) -> dict[str, Any]:
    """The same without a model: Gaussian features, d = 64, drawn for each trial; one cell."""
    generator, scale, d, trials = np.random.default_rng(0), np.linspace(1.0, 3.0, 64), 64, 200
    real = generator.normal(size=(1300, d)) * scale
    reference = Reference.of(FeatureMoments.from_features(real.astype(np.float32)))
    shares = {}
    for size in (500, 2000, 8000):
        calls = []
        for _ in range(trials):
            pair = [
                {(10, 0.0): (generator.normal(size=(size, d)) * scale * 1.05 + 0.3).astype("f4")}
                for _ in range(2)
            ]
            one, other = (rows(images, np.arange(size), reference) for images in pair)
            calls.append(judge(one, other).call)
        shares[str(size)] = sum(call != "tied" for call in calls) / trials
    error = (0.05 * 0.95 / trials) ** 0.5
    return {"trials": trials, "level": 0.05, "standard_error_at_level": round(error, 4),
            "alarms_by_n_images": shares}  # fmt: skip


def twins(reference: Reference) -> dict[str, Any]:
    """Judges models of the same training from other seeds against each other."""
    everything = np.arange(2000)
    tables = [
        rows(drawn(trained(seed), len(everything)), everything, reference) for seed in range(TWINS)
    ]
    pairs = [judge(a, b) for a, b in combinations(tables, 2)]
    sizes = sorted(abs(p.point.difference) for p in pairs if p.point and p.point.difference)
    return {
        "twins": TWINS, "pairs": len(pairs), "training_steps": TRAIN_STEPS, "n_images": 2000,
        "told_apart": sum(pair.call != "tied" for pair in pairs) / len(pairs),
        "median_difference": sizes[len(sizes) // 2], "largest_difference": sizes[-1],
        "fid_at_operating_point": [p.point.new.fid for p in pairs[:1] if p.point],
        "told_apart_with_largest_difference_as_margin": sum(
            judge(a, b, margin=sizes[-1]).call != "tied" for a, b in combinations(tables, 2)
        ) / len(pairs),
    }  # fmt: skip


def planted(reference: Reference) -> dict[str, Any]:
    """Judges a model with noise on its weights against the model itself."""
    clean, everything = trained(0), np.arange(2000)
    own = rows(drawn(clean, len(everything)), everything, reference)
    found = {}
    for share in SHARES:
        spoiled, generator = copy.deepcopy(clean), torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in spoiled.parameters():
                if weight.numel() > 1:
                    noise = torch.randn(weight.shape, generator=generator)
                    weight += share * weight.std() * noise
        verdict = judge(rows(drawn(spoiled, len(everything)), everything, reference), own)
        point = verdict.point
        assert point is not None
        found[str(share)] = {"call": verdict.call, "difference": point.difference,
                             "low": point.low, "high": point.high}  # fmt: skip
    return {"n_images": 2000, "training_steps": TRAIN_STEPS, "by_share_of_noise": found}


def main() -> None:
    parts = {"aa": alarms, "synthetic": synthetic, "twins": twins, "planted": planted}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=parts)
    part = parser.parse_args().part
    real = PixelFeatures(8, 8, 1)(load_images("digits", "train").images)
    result = parts[part](Reference.of(FeatureMoments.from_features(real)))
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps({**known, part: result}, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
