"""How often a verdict with twins calls two trainings of one recipe different, and what it finds.

    python -m benchmarks.training_noise

writes training_noise.json and prints its tables. Each draw makes k twins and two checkpoints that
are judged, as rows of the table, and asks `judge` and `beyond_training_noise`.

- `level`: the two are further trainings of the recipe; a call but `tied` is a false alarm. tau is
  the spread between trainings, in units of the standard error of a paired difference. `alone` is
  the verdict without twins.
- `other`: the same where the model is not kept to: training noise skewed (exponential) or with
  heavy tails (t, 4 degrees of freedom); the older checkpoint itself one of the twins; a judged pair
  with twice the twins' sampling error; and FIDs of features (Gaussian, d = 8, N = 400) whose
  trainings differ in their mean, so that the score is skewed.
- `power`: the two differ by so many standard deviations of a difference of two trainings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddim_core.decisions.checkpoints.twins import beyond_training_noise
from ddim_core.decisions.checkpoints.verdict import judge
from ddim_core.decisions.row import CellRow
from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.distances.frechet_infinity import frechet_interval
from ddim_core.statistics.moments import FeatureMoments
from tests.core.rows import cell_row

RESULTS = Path(__file__).with_name("training_noise.json")
GROUPS, SIZE = 20, 100  # of a row's jackknife
TRAININGS = (2, 3, 5, 8)
TAUS = (0.0, 0.5, 1.0, 3.0)
GAPS = (2.0, 4.0, 8.0, 16.0)
DRAWS_OF_LEVEL, DRAWS, DRAWS_OF_FEATURES = 3000, 1000, 400
Random = np.random.Generator
Draw = Callable[[Random, int], NDArray[np.float64]]


def normal(random: Random, n: int) -> NDArray[np.float64]:
    return random.normal(size=n)


def exponential(random: Random, n: int) -> NDArray[np.float64]:
    return random.exponential(size=n) - 1.0


def heavy(random: Random, n: int) -> NDArray[np.float64]:
    return random.standard_t(4, size=n) / np.sqrt(2.0)


def row(name: int, fid: float, leave_one_out: Sequence[float]) -> CellRow:
    return cell_row(**{
        "cell_digest": str(name), "checkpoint": str(name), "weights_digest": str(name), "steps": 10,
        "eta": 0.0, "variance": "eta", "spacing": "uniform", "clip": False, "fid": fid,
        "fid_leave_one_out": list(leave_one_out), "group_sizes": [SIZE] * GROUPS,
    })  # fmt: skip


def scored(random: Random, truths: NDArray[np.float64], errors: NDArray[np.float64]) -> list[Any]:
    """Rows whose score is the mean of their groups: what the noise moves in all alike, and an own
    error, which gives the score this standard error."""
    shared = random.normal(size=GROUPS) * 3.0
    own = random.normal(size=(len(truths), GROUPS)) * errors[:, None] * np.sqrt(GROUPS)
    groups = truths[:, None] + shared + own
    total = groups.sum(axis=1, keepdims=True)
    rests = (total - groups) / (GROUPS - 1)
    return [
        [row(i, mean / GROUPS, rest)] for i, (mean, rest) in enumerate(zip(
            total[:, 0], rests, strict=True))
    ]  # fmt: skip


def trainings(
    random: Random, k: int, tau: float, gap: float = 0.0, draw: Draw = normal, unequal: float = 1.0
) -> list[Any]:
    """k twins and the judged pair; a paired difference of twins has a standard error of 1."""
    truths = 30.0 + tau * draw(random, k + 2)
    truths[-1] += gap
    errors = np.full(k + 2, np.sqrt(0.5))
    errors[k:] *= unequal
    return scored(random, truths, errors)


def calls(rows: Sequence[Any], twins: Sequence[Any]) -> tuple[bool, bool]:
    """Whether the last two are told apart: without twins, and with them."""
    plain = judge(rows[-1], rows[-2])
    return plain.call != "tied", beyond_training_noise(plain, twins).call != "tied"


def share(
    draws: int, make: Callable[[Random], list[Any]], k: int, is_twin: bool = False
) -> dict[str, float]:
    random = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        rows = make(random)
        found.append(calls(rows, rows[1 : k + 1] if is_twin else rows[:k]))
    alone, twins = np.mean(found, axis=0)
    return {"alone": float(alone), "with_twins": float(twins)}


def level() -> dict[str, Any]:
    return {
        str(k): {
            str(tau): share(DRAWS_OF_LEVEL, lambda r, k=k, tau=tau: trainings(r, k, tau), k)  # type: ignore[misc]
            for tau in TAUS
        }
        for k in TRAININGS
    }


def other() -> dict[str, Any]:
    """At tau = 3, where training decides; `unequal` at tau = 0.5, where sampling does."""
    reference = Reference.of(
        FeatureMoments.from_features(np.random.default_rng(9).normal(size=(2000, 8)))
    )

    def features(random: Random, k: int) -> list[Any]:
        shared = random.normal(size=(400, 8))
        rows = []
        for i in range(k + 2):
            drawn = 0.9 * shared + 0.19**0.5 * random.normal(size=(400, 8))
            drawn += (0.3 + 0.05 * random.normal()) / np.sqrt(8)
            groups = [FeatureMoments.from_features(part) for part in np.split(drawn, GROUPS)]
            score = frechet_interval(groups, reference)
            rows.append([row(i, score.fid, score.loo)])
        return rows

    return {
        str(k): {
            "exponential": share(DRAWS, lambda r, k=k: trainings(r, k, 3.0, 0.0, exponential), k),  # type: ignore[misc]
            "heavy": share(DRAWS, lambda r, k=k: trainings(r, k, 3.0, 0.0, heavy), k),  # type: ignore[misc]
            "old_is_a_twin": share(DRAWS, lambda r, k=k: trainings(r, k, 3.0), k, True),  # type: ignore[misc]
            "unequal": share(DRAWS, lambda r, k=k: trainings(r, k, 0.5, unequal=2.0), k),  # type: ignore[misc]
            "features": share(DRAWS_OF_FEATURES, lambda r, k=k: features(r, k), k),  # type: ignore[misc]
        }
        for k in TRAININGS
    }


def power() -> dict[str, Any]:
    """At tau = 1: a difference of two trainings has the standard deviation sqrt(3)."""
    return {
        str(k): {
            str(gap): share(
                DRAWS, lambda r, k=k, gap=gap: trainings(r, k, 1.0, gap * np.sqrt(3.0)), k  # type: ignore[misc]
            )["with_twins"]
            for gap in GAPS
        }
        for k in TRAININGS
    }  # fmt: skip


def main() -> None:
    found = {
        "draws_of_level": DRAWS_OF_LEVEL, "draws": DRAWS, "draws_of_features": DRAWS_OF_FEATURES,
        "level": 0.05,
        "standard_error_at_level": round((0.05 * 0.95 / DRAWS_OF_LEVEL) ** 0.5, 4),
        "false_alarms": level(), "other": other(), "power": power(),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    for name in ("false_alarms", "other", "power"):
        print(f"\n{name}")
        for k, by in found[name].items():  # type: ignore[attr-defined]
            told = [
                f"{about}: {_percent(x)}" if isinstance(x, float)
                else f"{about}: {_percent(x['with_twins'])} (alone {_percent(x['alone'])})"
                for about, x in by.items()
            ]  # fmt: skip
            print(f"  {k} trainings   {', '.join(told)}")


def _percent(x: float) -> str:
    return f"{100 * x:.1f} %"


if __name__ == "__main__":
    main()
