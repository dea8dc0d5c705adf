"""What `until_decided` was asked for, checked before anything is computed."""

from __future__ import annotations

from typing import Any, get_args

from ddim_core.allocation import Goal
from ddim_core.specs import require_choice
from flows.asked import with_defaults
from flows.request import NONE, GridRequest

LEAST_FIRST = 128  # images of a first round: fewer make groups of the jackknife below six
RACE = ("confidence", "budget", "goal")


def race_request(asked: dict[str, Any]) -> GridRequest:
    """Checks the flow's parameters, and returns those that it shares with a grid.

    Raises:
        ValueError: For the first parameter that cannot be, with its value.
    """
    confidence, budget, goal = (asked[name] for name in RACE)
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; it must lie between 0 and 1")
    require_choice("goal", goal, get_args(Goal))
    shared = {k: v for k, v in asked.items() if k not in RACE}
    request = GridRequest(**with_defaults("fid_grid", {**shared, "against": NONE}))
    k = len(request.cells(max(request.steps), "epsilon"))
    least = k * first_images(1, request.shard_size, request.n_images)
    if budget is not None and budget < least:
        raise ValueError(
            f"budget is {budget} images; the first round of {k} cells takes at least {least}"
        )
    return request


def usual_budget(k: int, first: int, most: int) -> int:
    """Half of what a full grid of k cells draws, or the first round if that takes more."""
    return max(k * most // 2, k * first)


def first_images(n_features: int, shard_size: int, most: int) -> int:
    """Images of a first round: whole shards, and enough to correct FID for their number."""
    wanted = max(LEAST_FIRST, int(1.5 * n_features))
    return min(-(-wanted // shard_size) * shard_size, most)
