"""What the intervals and the paired test are worth, by simulation: the tables of docs/.

    python -m benchmarks.intervals coverage | parts | extrapolation | power | alarms

Each prints Markdown rows. Seeds are fixed; a run takes one to four minutes on one core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
from scipy.special import stdtr

from benchmarks.worlds import World
from ddim_core.decisions.compare import tied_with_best
from ddim_core.scores.frechet_infinity import chong_forsyth
from ddim_core.scores.frechet_score import FrechetScore, frechet_score
from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.moments import Floats
from ddim_core.statistics.paired import paired_difference
from ddim_core.statistics.rows import FeatureRows, places
from tests.core.rows import cell_row

GROUPS = 20


def scored(world: World, x: Floats) -> FrechetScore:
    groups = places(len(x), -(-len(x) // GROUPS))
    return frechet_score(FeatureRows.of_array(x), groups, world.reference)


def coverage(d: int, n: int, kind: str, draws: int) -> str:
    """How often the plug-in's interval holds its own mean, and fid_inf's the truth."""
    world, rng = World.of(d), np.random.default_rng([d, n])
    scores = [scored(world, world.draw(n, rng, kind)) for _ in range(draws)]
    mean = float(np.mean([s.fid for s in scores]))
    holds = np.mean([s.fid_low <= mean <= s.fid_high for s in scores])
    if scores[0].fid_inf is None:
        return f"| {d} | {n} | {kind} | {draws} | {100 * holds:.1f} % | null |"
    inf = np.mean([s.fid_inf_low <= world.truth <= s.fid_inf_high for s in scores])
    return f"| {d} | {n} | {kind} | {draws} | {100 * holds:.1f} % | {100 * inf:.1f} % |"


def extrapolation(d: int, n: int, kind: str, draws: int) -> str:
    """Bias, spread and cost of fid_inf beside the straight line through 15 sample sizes."""
    world, rng = World.of(d), np.random.default_rng([d, n])
    values: dict[str, list[float]] = {"plug-in": [], "line": [], "ours": []}
    seconds = {"line": 0.0, "ours": 0.0}
    for draw in range(draws):
        x = world.draw(n, rng, kind)
        began = time.process_time()
        score = scored(world, x)
        seconds["ours"] += time.process_time() - began
        began = time.process_time()
        values["line"].append(chong_forsyth(x, world.reference, seed=draw) - world.truth)
        seconds["line"] += time.process_time() - began
        values["plug-in"].append(score.fid - world.truth)
        values["ours"].append((score.fid_inf or np.nan) - world.truth)
    texts = [f"{np.mean(v):+.3f} ({np.std(v):.3f})" for v in values.values()]
    ratio = seconds["line"] / seconds["ours"]
    return (
        f"| {d} | {n} | {kind} | {draws} | {world.truth:.2f} | "
        + " | ".join(texts)
        + (f" | {ratio:.1f} |")
    )


def parts(d: int, n: int, kind: str, draws: int) -> str:
    """What either correction leaves: bias of the plug-in, its jackknife, (7) alone, and both."""
    world, rng = World.of(d), np.random.default_rng([d, n])
    scores = [scored(world, world.draw(n, rng, kind)) for _ in range(draws)]
    values = {
        "plug-in": [s.fid for s in scores],
        "jackknife": [jackknife(s.fid, s.loo, s.sizes).bias_corrected for s in scores],
        "matrix": [s.fid_inf_raw for s in scores],
        "both": [s.fid_inf for s in scores],
    }
    spread = float(np.std(values["both"]))
    texts = [f"{np.mean(v) - world.truth:+.3f}" for v in values.values()]
    off = f"{(np.mean(values['both']) - world.truth) / spread:+.2f}"
    found = f"| {d} | {n} | {kind} | {draws} | {world.truth:.2f} | "
    return found + " | ".join(texts) + f" | {spread:.3f} | {off} |"


def power(draws: int, rotated: bool, d: int = 64, n: int = 5000, correlation: float = 0.95) -> str:
    """How often a true difference of 0.05 is found: features of a and b share their noise."""
    a, rng = World.of(d, rotated=rotated), np.random.default_rng(5)
    scale = shift_for(a, 0.05)
    found = {"paired": 0, "unpaired": 0}
    for _ in range(draws):
        noise, own = rng.normal(size=(2, n, d))
        other = correlation * noise + np.sqrt(1.0 - correlation**2) * own
        one = scored(a, noise @ a.factor.T)
        two = scored(a, scale * (other @ a.factor.T))
        paired = paired_difference(two.loo, one.loo, two.fid, one.fid, two.sizes)
        found["paired"] += paired.p_value < 0.05 and paired.value > 0
        halves = [(s.fid_high - s.fid) / 2.093 for s in (one, two)]  # t at 19 degrees of freedom
        t = (two.fid - one.fid) / np.hypot(*halves)
        found["unpaired"] += 2.0 * stdtr(2 * GROUPS - 2, -abs(t)) < 0.05 and t > 0
    shares = [f"{count / draws:.3f}" for count in found.values()]
    return f"| {d} | {n} | {correlation} | {a.truth:.2f} | {draws} | " + " | ".join(shares) + " |"


def shift_for(world: World, difference: float) -> float:
    """The factor on all features that moves the true distance up by `difference`."""
    trace = float(np.vdot(world.factor, world.factor))
    root = (trace + world.reference.trace - world.truth) / 2.0
    # (s^2 - 1) trace - 2 (s - 1) root = difference
    b = trace - root
    return 1.0 + (np.sqrt(b * b + trace * difference) - b) / trace


def alarms(draws: int, d: int = 32, n: int = 1000, correlation: float = 0.9) -> str:
    """A/A: how often a pair of equal cells, and any of ten, is called different."""
    world, rng = World.of(d), np.random.default_rng(6)
    pairs = families = 0
    for _ in range(draws):
        noise = rng.normal(size=(n, d))
        rows = []
        for _ in range(10):
            own = rng.normal(size=(n, d))
            mixed = correlation * noise + np.sqrt(1.0 - correlation**2) * own
            score = scored(world, mixed @ world.factor.T)
            loo, sizes = list(score.loo), list(score.sizes)
            rows.append(cell_row(fid=score.fid, fid_leave_one_out=loo, group_sizes=sizes))
        first, second = rows[:2]
        test = paired_difference(first.fid_leave_one_out, second.fid_leave_one_out,
                                 first.fid, second.fid, first.group_sizes)  # fmt: skip
        pairs += test.p_value < 0.05
        families += len(tied_with_best(rows)) < len(rows)
    return f"| {d} | {n} | {correlation} | {draws} | {pairs / draws:.3f} | {families / draws:.3f} |"


CASES: dict[str, Callable[[], list[str]]] = {
    "coverage": lambda: [
        coverage(d, n, kind, draws)
        for d, n, draws in ((64, 2560, 400), (64, 640, 600), (64, 160, 1000), (64, 48, 1000))
        for kind in ("gauss", "t6", "ellip")
    ],
    "extrapolation": lambda: [
        extrapolation(d, n, kind, draws)
        for d, n, draws in ((64, 2560, 100), (64, 640, 200), (64, 160, 300), (256, 640, 60))
        for kind in ("gauss", "ellip")
    ],
    "parts": lambda: [
        parts(d, n, kind, draws)
        for d, n, draws in ((64, 2560, 200), (64, 640, 200), (64, 160, 300), (512, 1250, 40))
        for kind in ("gauss", "t6", "ellip")
    ],
    "power": lambda: [power(300, rotated) for rotated in (True, False)],
    "alarms": lambda: [alarms(400)],
}


if __name__ == "__main__":
    for line in CASES[sys.argv[1]]():
        print(line, flush=True)
