"""The search finds what brute force finds, spends what it may, and goes on where it stopped."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from ddim_core.samplers.name import SamplerName
from ddim_core.tuning.evaluations import Evaluations
from ddim_core.tuning.positions import Positions
from tests.core.analytic import one_thread  # noqa: F401
from tests.core.samplers.exact import linear
from tests.core.tuning.exact import Exact

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}


@pytest.fixture(scope="module")
def diffusion() -> Exact:
    return Exact("vp", linear())


def brute_force(world: Exact, sampler: str, steps: int, n: int, low: float = 0.0) -> float:
    """The least distance of all lists on a grid of n positions."""
    top = world.scale(sampler).top
    places = [top * (low + (1.0 - low) * i / (n - 1)) for i in range(n)]
    lists: list[Positions] = [
        tuple(reversed(chosen)) for chosen in combinations([float(round(u)) for u in places], steps)
    ]
    return min(world.mean(sampler, positions) for positions in lists)


@pytest.mark.parametrize(("sampler", "steps", "n"), [("euler", 3, 11), ("dpmpp_2m", 4, 9)])
def test_no_list_of_a_grid_of_all_is_nearer(
    diffusion: Exact, sampler: str, steps: int, n: int
) -> None:
    found = diffusion.search(sampler, steps)
    assert found.finished
    assert found.distance <= 1.05 * brute_force(diffusion, sampler, steps, n)
    assert found.distance <= found.bent_distance <= found.start_distance
    assert found.distance < 0.8 * found.start_distance
    family = diffusion.search(sampler, steps, moves=())
    assert family.finished
    assert family.distance == found.bent_distance
    assert family.n_tried < 0.7 * found.n_tried


def test_a_flow_is_tuned_in_sigmas_between_the_timesteps() -> None:
    flow = Exact("flow", FLOW)
    found = flow.search("flow_euler", 3)
    assert found.distance <= 1.05 * brute_force(flow, "flow_euler", 3, 11, low=0.02)
    listed = flow.scale("flow_euler").listed
    assert any(u % 1.0 for u in found.positions)
    from ddim_core.samplers.name import parse_sampler

    assert listed(parse_sampler("flow_euler"), found.positions).own_sigmas[0] <= 1.0


def test_a_search_that_stopped_goes_on_with_what_it_measured(
    diffusion: Exact, tmp_path: Path
) -> None:
    whole = diffusion.search("dpmpp_2m", 3, kept=Evaluations(diffusion.measure, tmp_path / "a"))
    lines = (tmp_path / "a").read_bytes().splitlines(keepends=True)
    assert len(lines) > 40
    # Killed in the middle of a line; one before it was changed on disk.
    planted = lines[3].replace(b"0.", b"1.", 1)
    assert planted != lines[3]
    (tmp_path / "b").write_bytes(b"".join([*lines[:3], planted, *lines[4:30], lines[30][:-9]]))
    asked: list[str] = []

    def counted(*of: object) -> object:
        asked.append(str(of))
        return diffusion.measure(*of)  # type: ignore[arg-type]

    again = diffusion.search("dpmpp_2m", 3, kept=Evaluations(counted, tmp_path / "b"))  # type: ignore[arg-type]
    assert again == whole
    assert len(asked) == len(lines) - 29
    third = diffusion.search("dpmpp_2m", 3, kept=Evaluations(counted, tmp_path / "b"))  # type: ignore[arg-type]
    assert third == whole
    assert len(asked) == len(lines) - 29


def test_the_budget_is_kept_and_its_end_told(diffusion: Exact) -> None:
    short = diffusion.search("dpmpp_2m", 4, budget=40.0)
    assert not short.finished
    assert short.spent <= 40.0
    assert short.distance <= short.start_distance
    with pytest.raises(ValueError, match="budget is 3 network calls an image; one candidate"):
        diffusion.search("dpmpp_2m", 4, budget=3.0)


def test_the_first_candidate_counts_and_numbers_that_are_not_finite_never_win(
    diffusion: Exact,
) -> None:
    once = diffusion.search("dpmpp_2m", 3, budget=3.0)
    assert (once.spent, once.n_tried, once.finished) == (3.0, 2, False)

    def broken(sampler: SamplerName, steps: int, chunk: int) -> np.ndarray:
        found = diffusion.measure(sampler, steps, chunk)
        return found * np.nan if sampler.timesteps[0] == 999 else found

    found = diffusion.search("dpmpp_2m", 3, kept=Evaluations(broken))
    assert np.isfinite(found.distance)
    assert found.positions[0] != 999.0
    with pytest.raises(ValueError, match="ends in numbers that are not finite"):
        diffusion.search("dpmpp_2m", 3, kept=Evaluations(lambda *of: broken(*of) * np.nan))


def test_a_list_that_is_known_is_looked_at_even_on_a_small_budget(diffusion: Exact) -> None:
    good = diffusion.search("dpmpp_2m", 3).positions
    found = diffusion.search("dpmpp_2m", 3, budget=30.0, known=[good])
    assert found.distance <= diffusion.mean("dpmpp_2m", good) + 1e-9


def test_what_was_asked_before_is_not_asked_again(diffusion: Exact) -> None:
    """Lists that begin alike share their beginning's calls."""
    from dataclasses import replace

    from ddim_core.samplers.name import parse_sampler

    name = parse_sampler("dpmpp_2m")
    diffusion.runs.ends(replace(name, timesteps=(950, 600, 301)), 3, 0)
    before = diffusion.runs.calls
    diffusion.runs.ends(replace(name, timesteps=(950, 600, 299)), 3, 0)
    assert diffusion.runs.calls == before + diffusion.chunks[0]
