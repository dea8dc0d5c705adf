"""What scores cost: Frechet distances against the peers' functions, and memory at 50,000 images.

    python -m benchmarks.scores peers [REPEATS]     (half a minute of one core a repeat)
    python -m benchmarks.scores memory N [d] [m]    (a process of its own a size: its peak is told)
    python -m benchmarks.scores cmmd N [d] [m]      (the same of CMMD)
    python -m benchmarks.scores networks            (CPU seconds an image, random weights)
    python -m benchmarks.scores needs               (half an interval's width, by number of images)

pytorch-fid is not among our packages: `pip install --no-deps pytorch-fid` for its figures. Times
are processor time of one thread, which others on the machine disturb less than the clock.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.run import REPEATS, figure
from ddim_core.scores.cell_score import ScoreReference, groups_of, score_features
from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.distances.frechet_score import frechet_score
from ddim_core.statistics.moments import FeatureMoments
from ddim_core.statistics.rows import FeatureRows

D, N, SHARD = 2048, 5000, 1000


def peer_figures(repeats: int = REPEATS) -> list[dict[str, Any]]:
    """Our distance and our whole Frechet score against one distance of the peers, d = 2048.

    The distance starts from moments, as the peers' functions do. The score starts from features:
    the distance, its interval over 15 groups, FID_inf and its interval.
    """
    import torch
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    torch.set_num_threads(1)
    x, y = _features(0), _features(1)
    moments, real = FeatureMoments.from_features(x), FeatureMoments.from_features(y)
    reference = Reference.of(real)
    rows = FeatureRows.of([x[i : i + SHARD] for i in range(0, N, SHARD)])
    a, b = (moments.mean, moments.covariance), (real.mean, real.covariance)
    works: dict[str, Callable[[], float]] = {
        "ours": lambda: reference.distance(moments),
        "score": lambda: frechet_score(rows, groups_of(rows), reference).fid,
        "torch-fidelity": lambda: fid_statistics_to_metric(
            {"mu": a[0], "sigma": a[1]}, {"mu": b[0], "sigma": b[1]}, False
        )["frechet_inception_distance"],
    }
    distance = _pytorch_fid()
    if distance is not None:
        works["pytorch-fid"] = lambda: float(distance(*a, *b))
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began = time.process_time()
            value = work()
            seconds[name].append(time.process_time() - began)
            expected = reference.distance(moments)
            assert abs(value - expected) < 1e-6 * expected, f"{name} says {value}"
    figures = [
        figure(f"torch-fidelity's Frechet distance / ours, d = {D}",
               seconds["torch-fidelity"], seconds["ours"])
    ]  # fmt: skip
    if distance is not None:
        figures += [
            figure(f"pytorch-fid's Frechet distance / ours, d = {D}",
                   seconds["pytorch-fid"], seconds["ours"]),
            figure(f"our Frechet score with both intervals / one pytorch-fid distance, d = {D}",
                   seconds["score"], seconds["pytorch-fid"]),
        ]  # fmt: skip
    return figures


def _features(seed: int) -> np.ndarray:
    """Float32 [5000, 2048] with a lognormal spectrum."""
    rng = np.random.default_rng(seed)
    scale = np.exp(0.7 * rng.normal(size=D))
    return (rng.standard_normal((N, D)) * scale).astype(np.float32)


def _pytorch_fid() -> Callable[..., Any] | None:
    warnings.simplefilter("ignore", DeprecationWarning)  # of sqrtm's argument `disp`
    try:
        from pytorch_fid.fid_score import calculate_frechet_distance
    except ImportError:
        print("pytorch-fid is not installed; no figure of it", file=sys.stderr)
        return None
    return calculate_frechet_distance


class Files(Sequence[np.ndarray]):
    """Shards in files, each read when it is asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        return np.load(self.paths[index])


def memory(n: int, d: int = D, m: int = 10_000, shard: int = 1000) -> dict[str, Any]:
    """Scores n images from files of 1,000 each against m; returns the process's peak memory.

    All scores: FID, FID_inf, KID, each with its interval, precision and recall. The reference is
    read from files as well.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Files(_write(Path(folder), "made", n, d, shard, 1.05))
        real = Files(_write(Path(folder), "real", m, d, shard, 1.0))
        before = _peak()
        began = time.process_time()
        reference = ScoreReference.of(FeatureRows.of(real))
        middle = time.process_time()
        score = score_features(made, reference)
        ended = time.process_time()
    record = {
        "name": "peak memory of a whole score", "images": n, "reference": m, "features": d,
        "features_megabytes": round(4e-6 * n * d), "peak_megabytes": round(_peak()),
        "before_megabytes": round(before), "reference_seconds": round(middle - began, 1),
        "score_seconds": round(ended - middle, 1), "fid": score.fid, "fid_inf": score.fid_inf,
        "kid": score.kid, "precision": score.precision,
    }  # fmt: skip
    print(json.dumps(record), flush=True)
    return record


def cmmd(n: int, d: int = 768, m: int = 2000, shard: int = 1000) -> None:
    """CMMD of n embeddings against m, both in memory; prints time and the process's peak memory."""
    from ddim_core.scores.distances.cmmd import UnitRows, cmmd_interval

    made, real = (
        FeatureRows.of([_embeddings(i, shard, d, shift) for i in range(rows // shard)])
        for rows, shift in ((n, 0.5), (m, 0.4))
    )
    before, began = _peak(), time.process_time()
    groups = groups_of(made)
    found = cmmd_interval(UnitRows(made, groups), FeatureRows.of(UnitRows(real, groups_of(real))))
    seconds = time.process_time() - began
    print(f"CMMD {found.value:.9g}, {seconds:.1f} s, {_peak():.0f} MB, {before:.0f} before")


def networks() -> None:
    """Prints what feature networks of full size take for an image, on one thread of a CPU."""
    import torch
    from torchvision.models import inception_v3
    from transformers import (
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
        Dinov2Config,
        Dinov2Model,
    )

    torch.set_num_threads(1)
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    clip = CLIPVisionConfig(**large, intermediate_size=4096, image_size=336, patch_size=14)
    dinov2 = Dinov2Config(**large, image_size=518, patch_size=14)
    for name, make, side in (
        ("Inception, torchvision's", lambda: inception_v3(init_weights=False), 299),
        ("DINOv2 ViT-L/14", lambda: Dinov2Model(dinov2), 224),
        ("CLIP ViT-L/14", lambda: CLIPVisionModelWithProjection(clip), 336),
    ):
        network, pixels = make().eval(), torch.randn(4, 3, side, side)
        with torch.inference_mode():
            network(pixels[:1])
            began = time.process_time()
            network(pixels)
        print(f"{name}, {side}x{side}: {(time.process_time() - began) / 4:.2f} s an image")


def needs(m: int = 5000, d: int = 256) -> None:
    """Prints every score with half its interval's width as a share of it, for 300 to 4,000 images
    of one world: ReLU features of a falling spectrum, the generated ones a little shifted."""
    from ddim_core.scores.distances.cmmd import UnitRows, cmmd_interval

    real = FeatureRows.of(_relu(0, m, d, 0.0))
    reference = ScoreReference.of(real)
    for n in (300, 1000, 4000):
        shards = _relu(1, n, d, 1.0)
        made = FeatureRows.of(shards)
        groups = groups_of(made)
        score = score_features(shards, reference)
        apart = FeatureRows.of(UnitRows(real, groups_of(real)))
        found = {"cmmd": cmmd_interval(UnitRows(made, groups), apart)}
        for name in ("fid", "fid_inf", "kid", "density", "coverage", "vendi"):
            found[name] = [getattr(score, name + end) for end in ("", "_low", "_high")]
        told = (
            f"{name} {value:.4g} +- {50 * (high - low) / value:.1f} %"
            for name, (value, low, high) in found.items()
        )
        print(f"N = {n}: {', '.join(told)}")


def _relu(seed: int, n: int, d: int, shift: float) -> list[np.ndarray]:
    scale = 1.0 / np.sqrt(1.0 + np.arange(d) / 4.0)
    rows = np.random.default_rng(seed).normal(size=(n, d)) * scale * (1.0 - 0.05 * shift)
    rows = np.maximum(rows + 0.3 + 0.08 * shift * scale, 0.0).astype(np.float32)
    return np.array_split(rows, 20)


def _embeddings(seed: int, n: int, d: int, shift: float) -> np.ndarray:
    rows = np.random.default_rng([int(10 * shift), seed]).standard_normal((n, d)) + shift
    return rows.astype(np.float32)


def _write(folder: Path, name: str, n: int, d: int, shard: int, scale: float) -> list[Path]:
    paths = []
    for i, start in enumerate(range(0, n, shard)):
        rng = np.random.default_rng([len(name), int(100 * scale), i])
        rows = scale * rng.standard_normal((min(shard, n - start), d), dtype=np.float32)
        paths.append(folder / f"{name}{i}.npy")
        np.save(paths[-1], rows)
    return paths


def _peak() -> float:
    """Megabytes, of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]]
    if sys.argv[1] == "peers":
        peer_figures(*numbers)
    else:
        works: dict[str, Callable[..., Any]] = {
            "cmmd": cmmd, "networks": networks, "needs": needs, "memory": memory,
        }  # fmt: skip
        works[sys.argv[1]](*numbers)
