"""When an interval is not to be trusted, by simulation: the tables of docs/comparisons.md.

    python -m benchmarks.trust tails [NAME,D,N,M ...]     coverage, and how often the warning shows
    python -m benchmarks.trust flat [NAME,D,N,M ...]      near the reference, along few directions
    python -m benchmarks.trust held                       both, in worlds that no bound was set on
    python -m benchmarks.trust duplicates                 images that stand twice
    python -m benchmarks.trust population                 references of few images

Each prints Markdown rows. Seeds are fixed. `tails` takes some ten minutes of one core, `held` five,
the others one each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.worlds import WORLDS, Draw, gauss
from ddim_core.scores.cell_score import groups_of
from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.distances.frechet_score import FrechetScore, frechet_influence, frechet_score
from ddim_core.scores.distances.kernel_score import KernelScore, kernel_score
from ddim_core.statistics.duplicates import duplicates_together
from ddim_core.statistics.moments import FeatureMoments, Floats, merge
from ddim_core.statistics.rows import FeatureRows
from ddim_core.statistics.tails import carried_by, lies_flat, rests_on_few

DRAWS, WHOLE = 200, 200_000
# World, features, generated and real images.
CASES = (
    ("gauss", 16, 500, 800), ("gauss", 64, 2000, 1000), ("gauss", 256, 1000, 1000),
    ("relu", 64, 500, 500), ("relu", 16, 5000, 2000), ("softmax", 16, 500, 800),
    ("softmax", 64, 1000, 1000), ("softmax", 256, 1000, 1000), ("mixture", 16, 500, 800),
    ("mixture", 64, 2000, 1000), ("chain", 64, 1000, 2000), ("chain", 16, 2000, 1000),
    ("uniform", 16, 500, 500), ("t6", 64, 640, 1000), ("t6", 16, 2000, 1000),
    ("elliptic", 64, 640, 1000), ("lognormal", 16, 500, 800), ("lognormal", 64, 1000, 1000),
    ("outliers", 16, 1000, 1000), ("outliers", 64, 1000, 1000), ("strays", 16, 1000, 1000),
    ("strays", 64, 2000, 2000), ("t3", 16, 1000, 1000), ("t3", 128, 500, 1000),
    ("lengths", 16, 1000, 1000), ("lengths", 64, 1000, 1000), ("sparse", 16, 1000, 1000),
    ("rare", 16, 1000, 1000), ("rare", 64, 2000, 1000),
)  # fmt: skip
FLAT = tuple((name, 16, 1000, 1000) for name in (
    "p = 0.05, s = 4", "p = 0.1, s = 4", "p = 0.5, s = 4", "p = 0.05, s = 2", "gauss", "relu",
    "softmax", "mixture", "chain",
))  # fmt: skip
# What the bounds of `rests_on_few` and `lies_flat` were not set on.
HELD = (
    ("laplace", 32, 1000, 1000), ("gammas", 64, 1000, 1000), ("binary", 64, 500, 1000),
    ("factors", 128, 500, 1000), ("t10", 32, 2000, 1000), ("uneven", 32, 1000, 500),
    ("twoscales", 32, 1000, 1000), ("tanh", 128, 1000, 1000), ("mildly", 32, 1000, 1000),
    ("chain", 128, 1000, 1000), ("pareto", 32, 2000, 1000), ("widely", 32, 1000, 1000),
    ("weibull", 16, 1000, 1000), ("t4", 64, 2000, 1000), ("stretched", 32, 1000, 1000),
    ("loud", 32, 2000, 1000), ("blank", 32, 1000, 1000), ("far", 128, 1000, 1000),
    ("cubes", 16, 2000, 1000),
)  # fmt: skip
HELD_FLAT = (
    ("p = 0.2, s = 2", 32, 1000, 1000), ("p = 0.02, s = 4", 32, 1000, 1000),
    ("p = 0.3, s = 3", 64, 2000, 1000), ("p = 0.1, s = 1", 16, 1000, 1000),
    ("laplace", 32, 1000, 1000), ("uneven", 32, 1000, 1000), ("factors", 64, 1000, 1000),
    ("gammas", 32, 1000, 1000), ("far", 32, 2000, 1000), ("stretched", 32, 1000, 1000),
)  # fmt: skip


def real_of(x: Floats) -> Floats:
    """The reference's images are of the generated ones' kind, and a little off."""
    return 1.1 * x + 0.1


def whole(
    draw: Draw, d: int, rng: np.random.Generator, of: Callable[[Floats], Floats]
) -> FeatureMoments:
    """Moments of ever so many."""
    return merge([FeatureMoments.from_features(of(draw(WHOLE // 8, d, rng))) for _ in range(8 * 8)])


def scored(x: Floats, y: Floats, reference: Reference) -> tuple[FrechetScore, KernelScore]:
    rows, real = FeatureRows.of_array(x), FeatureRows.of_array(y)
    groups = groups_of(rows)
    together = duplicates_together(rows, groups)
    apart = together.members if together else groups
    found = frechet_score(rows, groups, reference, None, together)
    kernel = kernel_score(rows, apart, real)
    carried = max(kernel.carried_by, carried_by(frechet_influence(rows, reference)))
    return found, replace(kernel, carried_by=carried)


def share(holds: Sequence[bool]) -> str:
    return f"{100.0 * float(np.mean(holds)):.1f} %"


def itself(x: Floats) -> Floats:
    return x


def flat(name: str, d: int, n: int, m: int) -> str:
    """The same as `tails` where both sides are of one law."""
    return covered(name, WORLDS[name], d, n, m, itself)


def tails(name: str, d: int, n: int, m: int) -> str:
    """Coverage of a world against a reference that is a little off."""
    return covered(name, WORLDS[name], d, n, m, real_of)


def covered(name: str, draw: Draw, d: int, n: int, m: int, real: Callable[[Floats], Floats]) -> str:
    """Coverage: by the intervals of fid and kid of their means, and by fid_inf's of the truth."""
    rng = np.random.default_rng([d, n, m])
    y = real(draw(m, d, rng))
    reference = Reference.of(FeatureMoments.from_features(y))
    truth = reference.distance(whole(draw, d, rng, lambda x: x))
    scores = [scored(draw(n, d, rng), y, reference) for _ in range(DRAWS)]
    fid = float(np.mean([s.fid for s, _ in scores]))
    kid = float(np.mean([k.kid for _, k in scores]))
    told = share([
        rests_on_few(k.carried_by, n, k.tail_index) or lies_flat(k.directions, k.curved)
        for _, k in scores
    ])  # fmt: skip
    held = (
        share([s.fid_low <= fid <= s.fid_high for s, _ in scores]),
        share([s.fid_inf_low <= truth <= s.fid_inf_high for s, _ in scores]),
        share([k.kid_low <= kid <= k.kid_high for _, k in scores]),
    )
    carried = np.median([k.carried_by for _, k in scores])
    inf = np.array([s.fid_inf for s, _ in scores])
    off = (inf.mean() - truth) / inf.std()
    return (
        f"| {name} | {d} | {n} | {m} | {' | '.join(held)} | {off:+.1f} | {carried:.0f} | {told} |"
    )


def duplicates(d: int, n: int, draws: int = DRAWS) -> list[str]:
    """Every image stands twice, in an order of its own."""
    rng = np.random.default_rng([d, n])
    y = real_of(gauss(2000, d, rng))
    reference = Reference.of(FeatureMoments.from_features(y))
    truth = reference.distance(whole(gauss, d, rng, lambda x: x))
    rows = {"by index": [], "duplicates together": []}
    for _ in range(draws):
        x = rng.permutation(np.repeat(gauss(n // 2, d, rng), 2, axis=0))
        of = FeatureRows.of_array(x)
        groups = groups_of(of)
        rows["by index"].append(frechet_score(of, groups, reference))
        rows["duplicates together"].append(
            frechet_score(of, groups, reference, None, duplicates_together(of, groups))
        )
    return [
        f"| {d} | {n} | {name} | {truth:.2f} | {np.mean([s.fid_inf for s in found]):.2f} | "
        f"{np.std([s.fid_inf for s in found]):.2f} | "
        + share([s.fid_inf_low <= truth <= s.fid_inf_high for s in found]) + " |"
        for name, found in rows.items()
    ]  # fmt: skip


def population(name: str, d: int, n: int, m: int, draws: int = DRAWS) -> str:
    """Both sides drawn anew: fid_inf against the reference drawn, fid_population, and the truth."""
    draw, rng = WORLDS[name], np.random.default_rng([d, n, m])
    against = Reference.of(whole(draw, d, rng, real_of))
    truth = against.distance(whole(draw, d, rng, lambda x: x))
    found = []
    for _ in range(draws):
        y = real_of(draw(m, d, rng))
        x, real = FeatureRows.of_array(draw(n, d, rng)), FeatureRows.of_array(y)
        reference = Reference.of(FeatureMoments.from_features(y))
        found.append(frechet_score(x, groups_of(x), reference, real))
    inf, both = (np.mean([getattr(s, k) for s in found]) for k in ("fid_inf", "fid_population"))
    held = share([s.fid_population_low <= truth <= s.fid_population_high for s in found])
    spread = np.std([s.fid_population for s in found])
    return (
        f"| {name} | {d} | {n} | {m} | {truth:.2f} | {np.mean([s.fid for s in found]):.2f} | "
        f"{inf:.2f} | {both:.2f} | {spread:.2f} | {held} |"
    )


def main(words: Sequence[str]) -> None:
    """Prints the rows that are asked for."""
    split = [word.rsplit(",", 3) for word in words[1:]]
    asked = [(name, int(d), int(n), int(m)) for name, d, n, m in split]
    tables = {
        "tails": ((tails, asked or CASES),),
        "flat": ((flat, asked or FLAT),),
        "held": ((tails, HELD), (flat, HELD_FLAT)),
    }
    if words[0] in tables:
        for row, cases in tables[words[0]]:
            for case in cases:
                print(row(*case), flush=True)
    elif words[0] == "duplicates":
        for d, n in ((64, 1000), (16, 500)):
            print("\n".join(duplicates(d, n)), flush=True)
    else:
        for case in (("gauss", 64, 640, 640), ("gauss", 64, 640, 120), ("elliptic", 64, 640, 300),
                     ("relu", 16, 500, 60), ("mixture", 16, 500, 100)):  # fmt: skip
            print(population(*case), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
