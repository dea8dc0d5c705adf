"""Sequential allocation against the full grid of the demo, over ten seeds.

    python -m benchmarks.allocation draw CHECKPOINT FOLDER [SEED ...]   (two CPU minutes a seed)
    python -m benchmarks.allocation replay FOLDER

`draw` makes every image of the full grid, once for each seed. `replay` scores the full grid, races
its cells on the same images as `ddim grid --until-decided` would, and prints for each seed whether
the race leads to the full grid's best cell, or to one that the full grid's own test calls tied
with it; two statements that are not the same.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.run import BATCH, ETAS, IMAGES, STEPS
from ddim_core.decisions.best import rank
from ddim_core.decisions.race import Rules, allocate
from ddim_core.decisions.row import CellRow
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.networks.specs import ClassifierSpec
from ddim_core.scores.cell_score import groups_of
from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.distances.frechet_score import frechet_score
from ddim_core.statistics.moments import FeatureMoments
from ddim_core.statistics.rows import FeatureRows
from tests.core.rows import cell_row

SEEDS = range(10)
SHARD = 128
SPECS = [SamplerSpec(s, eta=eta) for eta in ETAS for s in STEPS]
SPECS += [SamplerSpec(s, variance="sigma_hat", clip=True) for s in STEPS]


def draw(checkpoint: Path, folder: Path, seeds: Sequence[int]) -> None:
    """Draws the full grid's images for each seed, as features; what is there stays."""
    from ddim_core.checkpoints.checkpoint import load_checkpoint

    loaded, extractor = load_checkpoint(checkpoint), ready_extractor(folder)
    for seed in seeds:
        place = folder / f"seed{seed}.npz"
        if place.exists():
            continue
        cells = {f"cell{k}": drawn(loaded, spec, seed, extractor) for k, spec in enumerate(SPECS)}
        draft = folder / f"draft{seed}.npz"
        np.savez(draft, **cells)
        draft.replace(place)
        print(f"seed {seed} drawn", flush=True)


def ready_extractor(folder: Path) -> Any:
    """Trains the digits' classifier, and keeps the features of the reference."""
    import torch

    from ddim_core.features.classifier import train_classifier
    from ddim_core.images.load import load_images

    torch.set_num_threads(1)
    fitted, unseen = load_images("digits", "train"), load_images("digits", "test")
    extractor = train_classifier(ClassifierSpec(), fitted, unseen)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "reference.npy", extractor(fitted.images))
    return extractor


def drawn(loaded: Any, spec: SamplerSpec, seed: int, extractor: Any) -> np.ndarray:
    """The features [n, d] of all images of a cell."""
    import torch

    from ddim_core.diffusion.sampling import ImageNoise, sample
    from ddim_core.images.pixels import to_uint8

    shape = (loaded.channels, loaded.resolution, loaded.resolution)
    features = []
    for start in range(0, IMAGES, BATCH):
        noise = ImageNoise(seed, range(start, start + BATCH), shape)
        with torch.inference_mode():
            *_, last = sample(loaded.model, loaded.require_schedule(), spec, noise.x_T(), noise)
        features.append(extractor(to_uint8(last.x)))
    return np.concatenate(features)


def row_of(features: np.ndarray, reference: Reference) -> CellRow:
    """What the race and the tests need of a row."""
    rows = FeatureRows.of([features[i : i + SHARD] for i in range(0, len(features), SHARD)])
    score = frechet_score(rows, groups_of(rows), reference)
    return cell_row(**{
        "fid": score.fid, "fid_leave_one_out": list(score.loo), "fid_inf": score.fid_inf,
        "fid_inf_leave_one_out": None if score.loo_inf is None else list(score.loo_inf),
        "group_sizes": list(score.sizes), "n_images": len(features),
    })  # fmt: skip


def replay(folder: Path, confidence: float = 0.95) -> Iterator[dict[str, Any]]:
    """Races each seed's cells on the images of its full grid."""
    from flows.requests.race import first_images, usual_budget

    features = np.load(folder / "reference.npy")
    reference = Reference.of(FeatureMoments.from_features(features))
    nfe = [spec.steps for spec in SPECS]
    first = first_images(features.shape[1], SHARD, IMAGES)
    budget = usual_budget(len(SPECS), first, IMAGES)
    rules = Rules("best", confidence, budget, first, IMAGES, SHARD)
    for place in sorted(folder.glob("seed*.npz")):
        with np.load(place) as archive:
            cells = [archive[f"cell{k}"] for k in range(len(SPECS))]

        def score(
            which: Sequence[int], n: int, cells: list[np.ndarray] = cells
        ) -> dict[int, CellRow]:
            return {i: row_of(cells[i][:n], reference) for i in which}

        whole = [row_of(cell, reference) for cell in cells]
        ties = [i for i, found in enumerate(rank(whole).standings) if found.tied]
        by_inf = min(range(len(whole)), key=lambda i: whole[i].fid_inf or np.inf)
        outcome = allocate(nfe, score, rules)
        calls = sum(r.n_images * steps for r, steps in zip(outcome.rulings, nfe, strict=True))
        left = [i for i, r in enumerate(outcome.rulings) if r.status in ("best", "open")]
        yield {
            "seed": place.stem.removeprefix("seed"),
            "same_best": outcome.leader == ties[0],
            "same_best_by_fid_inf": outcome.leader == by_inf,
            "tied_by_the_full_grids_test": outcome.leader in ties,
            "full_grids_best_kept": ties[0] in left,
            "decided": outcome.decided,
            "left": len(left),
            "tied_in_full_grid": len(ties),
            "images": round(outcome.images / outcome.images_full, 3),
            "network_calls": round(calls / (IMAGES * sum(nfe)), 3),
        }


if __name__ == "__main__":
    if sys.argv[1] == "draw":
        asked = [int(seed) for seed in sys.argv[4:]] or list(SEEDS)
        draw(Path(sys.argv[2]), Path(sys.argv[3]), asked)
    else:
        found = list(replay(Path(sys.argv[2])))
        for record in found:
            print(json.dumps(record))
        for name in ("images", "network_calls"):
            shares = [record[name] for record in found]
            print(f"{name}: median {statistics.median(shares):.3f}, most {max(shares):.3f}")
        for name in ("same_best", "same_best_by_fid_inf", "tied_by_the_full_grids_test"):
            print(f"{name}: {sum(record[name] for record in found)} of {len(found)}")
