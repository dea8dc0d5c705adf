"""The race of (snapshot x setting) against the full grids of six snapshots, over ten seeds.

    python -m benchmarks.snapshots train FOLDER
    python -m benchmarks.snapshots draw FOLDER [SEED ...]  (1.3 CPU minutes a seed)
    OMP_NUM_THREADS=1 python -m benchmarks.snapshots replay FOLDER  (75 CPU seconds for ten seeds)

`train` trains the digits model once and keeps its moving average at six steps. `draw` makes every
image of all full grids, once for each seed. `replay` races all cells on the same images as
`ddim grid --checkpoint FOLDER --until-decided` would, and prints for each seed whether the race
leads to the full grids' best (snapshot, setting), or to one that the full grids' own test calls
tied with it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.allocation import SEEDS, SHARD, drawn, ready_extractor, row_of
from benchmarks.run import IMAGES
from ddim_core.decisions.checkpoints.snapshots import Call, rank_snapshots, stopping
from ddim_core.decisions.measure import FID
from ddim_core.decisions.race import Rules, allocate
from ddim_core.decisions.row import CellRow
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.scores.distances.frechet import Reference
from ddim_core.statistics.moments import FeatureMoments
from flows.requests.race import first_images, usual_budget

KEPT = (300, 600, 1000, 1500, 2000, 2500)  # training steps
SPECS = [SamplerSpec(s, eta=eta) for eta in (0.0, 1.0) for s in (5, 10, 20)]


def train(folder: Path) -> None:
    """Trains the digits model to the last of the kept steps, and keeps its average at each."""
    from ddim_core.checkpoints.checkpoint import save_pipeline
    from ddim_core.images.load import load_images
    from ddim_core.networks import training
    from flows.requests.models import toy_spec

    spec = toy_spec("digits", None, 1, KEPT[-1], seed=0)
    state = training.start(spec)
    for record in training.train(spec, load_images("digits", "train").images, state):
        if record.step in KEPT:
            place = folder / "snapshots" / f"digits-{record.step}"
            save_pipeline(place, state.ema, spec.noise, record.step, spec.objective)
            print(f"step {record.step} kept", flush=True)


def draw(folder: Path, seeds: Sequence[int]) -> None:
    """Draws all full grids' images for each seed, as features; what is there stays."""
    from ddim_core.checkpoints.checkpoint import load_checkpoint

    loaded = [load_checkpoint(folder / "snapshots" / f"digits-{step}") for step in KEPT]
    extractor = ready_extractor(folder)
    for seed in seeds:
        place = folder / f"seed{seed}.npy"
        if place.exists():
            continue
        cells = [drawn(one, spec, seed, extractor) for one in loaded for spec in SPECS]
        draft = folder / f"draft{seed}.npy"
        np.save(draft, np.stack(cells))
        draft.replace(place)
        print(f"seed {seed} drawn", flush=True)


def replay(folder: Path, confidence: float = 0.95) -> Iterator[dict[str, Any]]:
    """Races each seed's cells on the images of its full grids."""
    features = np.load(folder / "reference.npy")
    reference = Reference.of(FeatureMoments.from_features(features))
    of = [s for s in range(len(KEPT)) for _ in SPECS]
    nfe = [spec.steps for _ in KEPT for spec in SPECS]
    first = first_images(features.shape[1], SHARD, IMAGES)
    asked = Rules("best", confidence, usual_budget(len(of), first, IMAGES), first, IMAGES, SHARD)
    whole_rules = replace(asked, first=IMAGES)
    for place in sorted(folder.glob("seed*.npy")):
        images = np.load(place, mmap_mode="r")
        looks: list[dict[int, CellRow]] = []

        def score(
            which: Sequence[int], n: int, images: Any = images, looks: Any = looks
        ) -> dict[int, CellRow]:
            looks.append({i: named(row_of(images[i][:n], reference), i) for i in which})
            return looks[-1]

        outcome = allocate(nfe, score, stopping(asked))
        found = rank_snapshots(looks, of, asked, FID, outcome.leader)
        whole = score(range(len(of)), IMAGES)
        truth = rank_snapshots([whole], of, whole_rules, FID, None)
        ties = [cell for cell, behind in truth.cells.items() if behind.low <= 0.0]
        calls = sum(r.n_images * steps for r, steps in zip(outcome.rulings, nfe, strict=True))
        yield {
            "seed": place.stem.removeprefix("seed"),
            "same_best": found.leader == truth.leader,
            "tied_by_the_full_grids_test": found.leader in ties,
            "same_snapshot": found.best == truth.best,
            "full_grids_best_kept": found.cells[truth.leader].may_be_best,
            "left": sum(cell.may_be_best for cell in found.cells.values()),
            "tied_in_full_grids": len(ties),
            "snapshots_left": sum(one.behind.may_be_best for one in found.snapshots),
            "snapshots_left_in_full_grids": sum(one.behind.may_be_best for one in truth.snapshots),
            "fixed": {c: sum(one.call == c for one in found.settings) for c in get_args(Call)},
            "fixed_in_full_grids": {
                c: sum(one.call == c for one in truth.settings) for c in get_args(Call)
            },
            "images": round(outcome.images / outcome.images_full, 3),
            "network_calls": round(calls / (IMAGES * sum(nfe)), 3),
        }


def named(row: CellRow, i: int) -> CellRow:
    """A row with the setting of its cell."""
    spec, step = SPECS[i % len(SPECS)], KEPT[i // len(SPECS)]
    return replace(
        row, steps=spec.steps, eta=spec.eta, variance="eta", training_step=step,
        cell_digest=str(i), checkpoint=f"digits-{step}", weights_digest=str(step),
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]))
    elif sys.argv[1] == "draw":
        draw(Path(sys.argv[2]), [int(seed) for seed in sys.argv[3:]] or list(SEEDS))
    else:
        records = list(replay(Path(sys.argv[2])))
        for record in records:
            print(json.dumps(record))
        for name in ("same_best", "tied_by_the_full_grids_test", "same_snapshot"):
            print(f"{name}: {sum(record[name] for record in records)} of {len(records)}")
